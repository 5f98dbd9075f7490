"""NDJSON, for schemathesis: a text goes out as it is."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    return value.encode() if isinstance(value, str) else str(value).encode()
