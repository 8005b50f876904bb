"""Files on any file system: read, listed and copied, and written so that they appear when complete.

A path is local, or a URL such as s3://bucket/folder/name, which fsspec opens. The library of a
store is imported with the first path that needs it.
"""
