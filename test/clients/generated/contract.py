"""The generated client, with an eye on every answer: it must be one that the contract promises for its operation and status."""

import json
import re
from urllib.parse import urlsplit

from harbor_client import ApiClient, Configuration
from harbor_client.rest import RESTClientObject
from jsonschema import Draft202012Validator

BASE = "/api/v2.0"


class Contract:
    def __init__(self, path):
        with open(path) as file:
            self.document = json.load(file)
        self.operations = [
            (re.compile(re.sub(r"\{[^}]+\}", "[^/]+", BASE + template) + r"\Z"), template.count("{"), methods)
            for template, methods in self.document["paths"].items()
        ]

    def operation(self, method, path):
        """Fixed parts of a path win over its parameters."""
        found = [
            (parameters, methods[method.lower()])
            for pattern, parameters, methods in self.operations
            if pattern.match(path) and method.lower() in methods
        ]
        if not found:
            raise AssertionError(f"{method} {path} is no operation of the contract")
        return min(found, key=lambda each: each[0])[1]

    def check(self, method, url, status, content_type, body):
        operation = self.operation(method, urlsplit(url).path)
        name = operation["operationId"]
        response = operation["responses"].get(str(status), operation["responses"].get("default"))
        if response is None:
            raise AssertionError(f"{name}: the contract has no answer {status}: {body[:300]!r}")
        response = resolve(self.document, response)
        content = response.get("content", {})
        if not body or method == "HEAD":
            return name
        media_type = (content_type or "").split(";")[0].strip()
        if media_type not in content:
            raise AssertionError(f"{name}: {status} promises {sorted(content)} and came as {content_type}: {body[:300]!r}")
        if media_type == "application/json":
            schema = {**content[media_type]["schema"], "components": self.document["components"]}
            wrong = [
                f"{'/'.join(map(str, error.path))}: {error.message[:200]}"
                for error in Draft202012Validator(schema).iter_errors(json.loads(body))
            ]
            if wrong:
                raise AssertionError(f"{name}: the answer {status} is against its schema: {wrong[:5]}")
        return name


def resolve(document, node):
    while "$ref" in node:
        target = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


class Seen(RESTClientObject):
    """Sends as the generated client does, and checks what comes back."""

    def __init__(self, configuration, contract, called):
        super().__init__(configuration)
        self.contract = contract
        self.called = called

    def request(self, method, url, *args, **kwargs):
        response = super().request(method, url, *args, **kwargs)
        body = response.read()
        name = self.contract.check(method, url, response.status, response.getheader("Content-Type"), body)
        self.called.setdefault(name, set()).add(response.status)
        return response


def client(url, contract, called, name, password):
    configuration = Configuration(host=url + BASE, username=name, password=password)
    made = ApiClient(configuration)
    made.rest_client = Seen(configuration, contract, called)
    return made
