"""`holdfast serve` on uvicorn: start, workers, HTTP protocol. May import everything but `cli`."""
