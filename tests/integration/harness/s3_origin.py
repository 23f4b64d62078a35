"""An S3 origin whose object bytes are counted at the server: MinIO behind a logging proxy."""

from . import minio, nginx


class S3Origin:
    def __init__(self, work):
        self.minio = minio.Minio(work)
        self.proxy = nginx.Proxy(work, self.minio.port)

    @property
    def flags(self):
        return ["--endpoint", self.proxy.endpoint]

    def environment(self):
        return self.minio.environment()

    def fill(self, bucket, objects):
        self.minio.fill(bucket, objects)
        return f"s3://{bucket}"

    def object_bytes(self):
        """Since the last call."""
        return self.proxy.object_bytes()
