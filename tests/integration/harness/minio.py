"""A MinIO server: S3 that verifies Signature V4, with STS for temporary credentials."""

import concurrent.futures
import json
import secrets
import unittest
import urllib.request

from . import process, suite

try:
    import boto3
    import botocore.config
except ImportError:
    boto3 = None

READY_SECONDS = 60
REGION = "us-east-1"


class Minio:
    def __init__(self, work, environment=None):
        if boto3 is None:
            raise unittest.SkipTest("python3-boto3 is not installed")
        self.port = process.free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._work = work
        self._environment = environment or {}
        self._data = work.memory_directory("minio")
        work.at_close(lambda: self.server.close())
        self._start()

    def _start(self):
        self.access_key = secrets.token_hex(8)
        self.secret_key = secrets.token_hex(16)
        # With a domain it takes bucket names from host names, too.
        environment = process.clean_environment(
            self._work.path, MINIO_ROOT_USER=self.access_key, MINIO_ROOT_PASSWORD=self.secret_key,
            MINIO_DOMAIN="localhost", MINIO_BROWSER="off", MINIO_UPDATE="off", **self._environment)
        self.server = process.Server(
            [suite.tool("minio"), "server", self._data, "--address", f"127.0.0.1:{self.port}",
             "--quiet"], self._work.path / "minio.log", environment)
        self.server.wait_ready(self._healthy, READY_SECONDS)
        self.s3 = self._client("s3")

    def restart_with_new_keys(self):
        """The same objects; the old keys, and tokens made with them, are refused."""
        self.server.close()
        self._start()

    def _healthy(self):
        with urllib.request.urlopen(f"{self.endpoint}/minio/health/live", timeout=5) as reply:
            return reply.status == 200

    def _client(self, service, endpoint=None):
        return boto3.client(service, endpoint_url=endpoint or self.endpoint, region_name=REGION,
                            verify=False, aws_access_key_id=self.access_key,
                            aws_secret_access_key=self.secret_key,
                            config=botocore.config.Config(max_pool_connections=16,
                                                          signature_version="s3v4"))

    def signed_urls(self, bucket, keys, endpoint=None):
        """For a client that only GETs: each with a signature that the server verifies."""
        client = self._client("s3", endpoint)
        return [client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
                for key in keys]

    def environment(self):
        """For a process that is to use this server's owner's keys."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key,
                "AWS_REGION": REGION}

    def temporary_keys(self, seconds=900):
        """As STS gives them: AccessKeyId, SecretAccessKey, SessionToken."""
        return self._client("sts").assume_role(
            RoleArn="arn:aws:iam::123456789012:role/test", RoleSessionName="test",
            DurationSeconds=seconds)["Credentials"]

    def temporary_environment(self, seconds=900):
        """The same with a session token that STS gave; 900 s is the least that STS gives."""
        reply = self.temporary_keys(seconds)
        return {"AWS_ACCESS_KEY_ID": reply["AccessKeyId"], "AWS_REGION": REGION,
                "AWS_SECRET_ACCESS_KEY": reply["SecretAccessKey"],
                "AWS_SESSION_TOKEN": reply["SessionToken"]}

    def fill(self, bucket, objects):
        """Objects as {key: bytes or a function that makes them}."""
        self.s3.create_bucket(Bucket=bucket)
        self.put(bucket, objects)

    def make_public(self, bucket):
        """Anybody may list and read it."""
        self.s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({
            "Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Principal": {"AWS": ["*"]},
                "Action": ["s3:ListBucket", "s3:GetObject"],
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]}]}))

    def put(self, bucket, objects):
        def one(item):
            key, body = item
            self.s3.put_object(Bucket=bucket, Key=key, Body=body() if callable(body) else body)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(one, objects.items()))

    def delete(self, bucket, keys):
        for key in keys:
            self.s3.delete_object(Bucket=bucket, Key=key)
