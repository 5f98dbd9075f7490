"""Runs a Lambda function of the runtimes `provided.*` as a process of this machine, where LocalStack would start a container.

LocalStack finds it by its entry point, chosen with `LAMBDA_RUNTIME_EXECUTOR=process`. Each execution environment is one
process of the function's `bootstrap`, with a Runtime API of its own on a free port
(https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html). LocalStack never has two invocations in one environment.
"""

import json
import logging
import os
import queue
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from localstack import config
from localstack.services.lambda_.invocation.lambda_models import InvocationResult
from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin
from localstack.services.lambda_.invocation.runtime_executor import RuntimeExecutor

LOG = logging.getLogger(__name__)

# What AWS takes and gives in one invocation; LocalStack leaves it to its container.
EVENT_BYTES_MAX = 6 * 1024 * 1024
ANSWER_BYTES_MAX = 6 * 1024 * 1024 + 100
LOG_BYTES_MAX = 1 << 20


class RuntimeApi(BaseHTTPRequestHandler):
    """What the process asks: the next event, and where its answers go."""

    protocol_version = "HTTP/1.1"
    # An answer is one segment: with Nagle's algorithm each would wait for a delayed acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def do_GET(self):
        if not self.path.endswith("/runtime/invocation/next"):
            return self.answer(404)
        environment = self.server.environment
        environment.asked.set()
        event = environment.events.get()
        if event is None:
            self.close_connection = True
            return None
        deadline_ms = int((time.time() + environment.timeout_s) * 1000)
        headers = (
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", event["invoke-id"]),
            ("Lambda-Runtime-Deadline-Ms", str(deadline_ms)),
            ("Lambda-Runtime-Invoked-Function-Arn", event["invoked-function-arn"]),
            ("Lambda-Runtime-Trace-Id", event["trace-id"]),
        )
        return self.answer(200, event["payload"].encode(), headers)

    def do_POST(self):
        environment, body = self.server.environment, self.body()
        *_, request, kind = self.path.split("/")
        self.answer(202)
        if (request, kind) == ("init", "error"):
            environment.init_error = body
            environment.asked.set()
        elif kind in ("response", "error"):
            environment.answers.put((request, body, kind == "error"))


class Environment(RuntimeExecutor):
    """One execution environment."""

    def __init__(self, id, function_version):
        super().__init__(id, function_version)
        self.timeout_s = function_version.config.timeout
        self.variables = {}
        self.process = None
        self.asked, self.init_error = threading.Event(), None
        self.events, self.answers = queue.Queue(), queue.Queue()
        self.log = tempfile.TemporaryFile()
        self.api = ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
        self.api.daemon_threads = True
        self.api.environment = self

    def start(self, env_vars):
        self.variables = {name: str(value) for name, value in env_vars.items()}
        threading.Thread(target=self.api.serve_forever, daemon=True).start()
        self.spawn()

    def spawn(self):
        """Starts the process and waits until it asks for its first event. Queues of its own: a process that was killed may
        still hold an end of the old ones."""
        root = str(self.function_version.config.code.get_unzipped_code_location())
        bootstrap = os.path.join(root, "bootstrap")
        os.chmod(bootstrap, 0o755)
        self.events, self.answers = queue.Queue(), queue.Queue()
        self.asked.clear()
        self.init_error = None
        variables = {
            **self.variables,
            "PATH": os.environ["PATH"],
            "LAMBDA_TASK_ROOT": root,
            "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:%d" % self.api.server_port,
        }
        self.process = subprocess.Popen([bootstrap], cwd=root, env=variables, stdout=self.log, stderr=self.log)
        end = time.time() + config.LAMBDA_RUNTIME_ENVIRONMENT_TIMEOUT
        while not self.asked.wait(0.02):
            if self.process.poll() is not None or time.time() > end:
                raise RuntimeError("the bootstrap did not ask for an event: " + self.get_logs()[-500:])
        if self.init_error is not None:
            raise RuntimeError(f"the bootstrap reported: {self.init_error!r}")

    def stop(self):
        self.events.put(None)
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.api.shutdown()
        self.api.server_close()
        self.log.close()

    def invoke(self, payload):
        request, logged = payload["invoke-id"], os.fstat(self.log.fileno()).st_size
        if len(payload["payload"].encode()) > EVENT_BYTES_MAX:
            words = f"Request must be smaller than {EVENT_BYTES_MAX} bytes for the InvokeFunction operation"
            return self.result(request, logged, *failure("RequestEntityTooLargeException", words))
        if self.process.poll() is not None:
            self.spawn()
        self.events.put(payload)
        body, failed = self.wait(request)
        if len(body) > ANSWER_BYTES_MAX:
            words = f"Response payload size exceeded maximum allowed payload size ({ANSWER_BYTES_MAX} bytes)."
            body, failed = failure("Function.ResponseSizeTooLarge", words)
        return self.result(request, logged, body, failed)

    def wait(self, request):
        end = time.time() + self.timeout_s
        while True:
            try:
                answered, body, failed = self.answers.get(timeout=max(0.001, min(0.05, end - time.time())))
                if answered == request:
                    return body, failed
            except queue.Empty:
                if self.process.poll() is not None:
                    status = self.process.returncode
                    return failure("Runtime.ExitError", f"RequestId: {request} Error: Runtime exited with {status}")
                if time.time() >= end:
                    self.process.kill()
                    self.process.wait()
                    words = f"RequestId: {request} Error: Task timed out after {self.timeout_s:.2f} seconds"
                    return failure("Sandbox.Timedout", words)

    def result(self, request, logged, body, failed):
        said = os.pread(self.log.fileno(), LOG_BYTES_MAX, logged).decode(errors="replace")
        return InvocationResult(request, body, failed, f"START RequestId: {request}\n{said}END RequestId: {request}\n")

    def get_logs(self):
        return os.pread(self.log.fileno(), LOG_BYTES_MAX, 0).decode(errors="replace")

    def get_address(self):
        return "127.0.0.1"

    def get_endpoint_from_executor(self):
        return "127.0.0.1"

    def get_runtime_endpoint(self):
        return "http://127.0.0.1:%d" % config.GATEWAY_LISTEN[0].port

    @classmethod
    def prepare_version(cls, function_version):
        if function_version.config.code:
            function_version.config.code.prepare_for_execution()

    @classmethod
    def cleanup_version(cls, function_version):
        pass


def failure(kind, words):
    return json.dumps({"errorType": kind, "errorMessage": words}).encode(), True


class Plugin(RuntimeExecutorPlugin):
    name = "process"

    def load(self, *_, **__):
        return Environment
