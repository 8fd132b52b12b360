"""What an order, a product and a refusal are: values, request models, rules about one value, and errors.

May import the standard library, and pydantic in `requests.py` and `decoding.py`. Imports no other package of Holdfast.
"""
