"""What can go wrong, one class per kind. Each class says how it looks as an RFC 9457 problem.

HoldfastError                     base.py
 ├── InternalError                a bug in Holdfast; it is logged, and the client gets only the request id
 ├── PathNotFound                 request.py
 ├── MethodNotAllowed
 ├── RequestError                 the request itself is wrong; nothing was looked up
 │    ├── MalformedJson
 │    ├── UnsupportedMediaType
 │    ├── BodyTooLarge
 │    ├── InvalidRequest          has a FieldError for each wrong field
 │    └── InvalidIdempotencyKey
 ├── Refusal                      refusals.py: the request is valid, but the state of the shop does not allow it
 │    ├── ProductNotFound
 │    ├── ProductIdTaken
 │    ├── OrderNotFound
 │    ├── OrderCompleted
 │    ├── OrderCancelled
 │    ├── OrderExpired
 │    ├── IdempotencyKeyReused
 │    └── KeyedRefusal            final for its Idempotency-Key
 │         ├── StockRefused       a stock move
 │         │    ├── MoveOfUnknownProduct
 │         │    ├── StockTooLow
 │         │    └── StockTooHigh
 │         └── OrderRefused       an order
 │              ├── UnknownProducts
 │              ├── InsufficientStock
 │              ├── PriceChanged
 │              └── TotalTooLarge
 └── StorageError                 storage.py: Redis cannot do it; the client may try again
      ├── Overloaded              refused before anything was sent
      ├── StorageUnavailable      nothing was done
      ├── OutcomeUnknown          the command was sent, but no reply came
      └── UnsupportedRedis        this Redis must not be used as it is configured; the operator must act
"""
