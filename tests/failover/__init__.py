"""A service on a primary with replicas and sentinels, whose primary is killed, frozen and cut off: `make failover`."""
