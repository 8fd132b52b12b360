"""What can go wrong, one class per kind. Each class says how it looks as an RFC 9457 problem.

HoldfastError                     base.py
 ├── InternalError                a fault of Holdfast; logged, the client learns nothing but the request id
 ├── RequestError                 request.py: the request itself is wrong; nothing was looked up
 │    ├── MalformedJson
 │    ├── UnsupportedMediaType
 │    ├── BodyTooLarge
 │    ├── InvalidRequest          has a FieldError for each wrong field
 │    ├── InvalidIdempotencyKey
 │    ├── PathNotFound
 │    └── MethodNotAllowed
 ├── Refusal                      refusals.py: the request is valid, but the shop says no; nothing was changed
 │    ├── ProductNotFound
 │    ├── ProductIdTaken
 │    ├── OrderNotFound
 │    ├── OrderCompleted
 │    ├── OrderCancelled
 │    ├── OrderExpired
 │    ├── IdempotencyKeyReused
 │    ├── StockRefused            a stock move; final for its Idempotency-Key
 │    │    ├── MoveOfUnknownProduct
 │    │    ├── StockTooLow
 │    │    └── StockTooHigh
 │    └── OrderRefused            an order; final for its Idempotency-Key
 │         ├── UnknownProducts
 │         ├── InsufficientStock
 │         ├── PriceChanged
 │         └── TotalTooLarge
 └── StorageError                 storage.py: Redis cannot do it; the client may try again
      ├── Overloaded              refused before anything was sent
      ├── StorageUnavailable      nothing was done
      ├── OutcomeUnknown          the command was sent, but no reply came
      └── UnsupportedRedis        this Redis must not be used as it is set up; the operator must act
"""
