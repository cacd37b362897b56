"""Large immutable objects, stored by digest in a folder or an S3 bucket.

Every read is verified against the digest. `references` publishes which objects a service needs; `collection` removes
those that no service needs, and refuses while any service has not published its list.
"""

from servicekit.objects.store import ObjectStore, name_of

__all__ = ["ObjectStore", "name_of"]
