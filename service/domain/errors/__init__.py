"""What can go wrong: one class for each case. Each class says how it looks as an RFC 9457 problem.

HoldfastError                     base.py
 ├── InternalError                a bug in Holdfast; it is logged, and the client gets only the request id
 ├── PathNotFound                 request.py
 ├── ShopNotFound
 ├── MethodNotAllowed
 ├── AccessError                  access.py: the API key of the request does not allow it; nothing was looked up
 │    ├── NotAuthenticated
 │    ├── MissingScope
 │    ├── MissingShop
 │    ├── CrossSiteRequest
 │    └── RateLimited
 ├── RequestError                 request.py: the request itself is wrong; nothing was looked up
 │    ├── MalformedRequest
 │    ├── RequestTimeout
 │    ├── HeadTooLarge
 │    ├── UnsupportedHttpVersion
 │    ├── MalformedJson
 │    ├── UnsupportedMediaType
 │    ├── BodyTooLarge
 │    ├── InvalidRequest          has a FieldError for each wrong field
 │    └── InvalidIdempotencyKey
 ├── Refusal                      refusals.py: the request is valid, but the state of the shop does not allow it
 │    ├── ProductNotFound
 │    ├── ProductIdTaken
 │    ├── ProductHasChanged
 │    ├── SaleTimeEmpty
 │    ├── OrderNotFound
 │    ├── OrderArchived
 │    ├── OrderCompleted
 │    ├── EndedOrder
 │    │    ├── OrderCancelled
 │    │    └── OrderExpired
 │    ├── IdempotencyKeyReused
 │    └── RememberedRefusal       remembered_refusals.py: final for its Idempotency-Key for 24 hours
 │         ├── StockChangeRefusal      stock_refusals.py: the stock was not changed
 │         │    ├── ProductNotFoundForStockChange
 │         │    ├── InsufficientStockForStockChange
 │         │    ├── StockLimitExceeded
 │         │    └── StockHasMoved
 │         ├── OrderPlacementRefusal   order_refusals.py: the order was not placed
 │         │    ├── UnavailableLines
 │         │    │    ├── ProductsNotFound
 │         │    │    ├── CustomerRequired
 │         │    │    ├── NotOnSale
 │         │    │    ├── CustomerLimitExceeded
 │         │    │    └── InsufficientStock
 │         │    ├── PriceChanged
 │         │    └── TotalTooLarge
 │         └── ReturnRefusal           return_refusals.py: nothing was returned
 │              ├── ReturnOfPendingOrder
 │              ├── ReturnExceedsOrder
 │              └── ReturnExceedsStockLimit
 └── StorageError                 storage.py: Redis is not reachable, too busy or unsuitable; the client may try again
      ├── Overloaded              refused before anything was sent
      ├── StorageUnavailable      nothing was done
      ├── OutcomeUnknown          the command was sent, but no reply came
      └── UnsupportedRedis        this Redis must not be used as it is configured; the operator must act
           └── ReplicaRedis       this Redis is a replica; it may become a primary
"""
