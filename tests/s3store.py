"""A bucket as the tests of publishing see it, through Amazon's own client."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

KEYS = {
    "AWS_ACCESS_KEY_ID": "right",
    "AWS_SECRET_ACCESS_KEY": "right",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",  # no call to the metadata service for credentials
}


@dataclass
class Bucket:
    """One bucket of the S3 server."""

    client: Any
    endpoint: str
    name: str

    def objects(self, prefix: str = "") -> dict[str, int]:
        """Names and sizes."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}

    def get(self, key: str) -> bytes:
        """An object's content."""
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def put(self, key: str, data: bytes) -> None:
        """Write an object behind tritonkit's back."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def spoil(self, key: str) -> None:
        """Change an object's content but not its size."""
        self.put(key, bytes(byte ^ 1 for byte in self.get(key)))

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=self.name, Key=key)

    def current(self, folder: str) -> str:
        """The version that the pointer names."""
        return str(json.loads(self.get(f"{folder}/current.json"))["version"])
