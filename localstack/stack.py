"""The whole of Tidelog on this machine, without Docker: LocalStack as a process, the functions as processes, the same
template. `just localstack VERB` runs it.

    up [--output json] [--port N] [--parameter NAME=VALUE]…   start and deploy; a second `up` deploys again
    status                                                    what runs, and where
    logs                                                      follow what LocalStack says
    seed TOPIC FILE                                           ship a file's lines, making the topic
    reset                                                     delete every topic; functions and store stay
    down                                                      stop all of it; nothing is left
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".emu/localstack/venv/bin"
STACK = "tidelog"
UP_SECONDS = 60
DOWN_SECONDS = 60
SERVICES = "s3,dynamodb,dynamodbstreams,events,lambda,cloudformation,iam,sts,logs,ssm"


class Failed(Exception):
    pass


class Place:
    """Where the state of a running stack lies."""

    def __init__(self, name):
        self.folder = ROOT / ".emu" / name
        self.state, self.log = self.folder / "state.json", self.folder / "localstack.log"

    def read(self):
        try:
            return json.loads(self.state.read_text())
        except FileNotFoundError:
            return None

    def running(self):
        """The state, if its LocalStack still runs."""
        state = self.read()
        return state if state and alive(state["pid"]) else None


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that nobody has waited for yet is gone.
    status = pathlib.Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def say(words):
    print(words, file=sys.stderr, flush=True)


def run(command, **more):
    """Runs a step; what it prints is told if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **more)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}".strip())
    return done.stdout


def environment(state):
    """What AWS's tools, and ours, need to find it."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**variables, **keys, "AWS_ENDPOINT_URL": state["endpoint"], "AWS_REGION": "us-east-1"}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def is_free(port):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def install():
    run([ROOT / "tests/emulators", "localstack"])
    executor = ROOT / "localstack/executor"
    stamp, source = VENV.parent / "executor.py", executor / "tidelog_process_executor.py"
    if not stamp.exists() or stamp.read_bytes() != source.read_bytes():
        installed = VENV / "uv"
        command = [installed if installed.exists() else shutil.which("uv") or "uv", "pip", "install", "--quiet"]
        run([*command, "--reinstall-package", "tidelog-process-executor", "--python", VENV / "python", executor])
        shutil.rmtree(executor / "build", ignore_errors=True)
        shutil.rmtree(executor / "tidelog_process_executor.egg-info", ignore_errors=True)
        stamp.write_bytes(source.read_bytes())


def start(place, port):
    """LocalStack in a session of its own, so that everything it starts can be ended with it."""
    if not is_free(port):
        raise Failed(f"port {port} is taken: give --port, or stop what listens there")
    shutil.rmtree(place.folder, ignore_errors=True)
    (place.folder / "tmp").mkdir(parents=True)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    variables |= {
        "TMPDIR": str(place.folder / "tmp"),
        "FILESYSTEM_ROOT": str(ROOT / ".emu/localstack/root"),
        # Where a /.dockerenv exists it would write to system folders.
        "OVERRIDE_IN_DOCKER": "0",
        "LAMBDA_RUNTIME_EXECUTOR": "process",
        "SERVICES": SERVICES,
        "PROVIDER_OVERRIDE_DYNAMODB": "v2",
        "DYNAMODB_IN_MEMORY": "1",
        "DYNAMODB_SHARE_DB": "1",
        "DYNAMODB_LOCAL_PORT": str(free_port()),
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        # Not an address: the hosts of Function URLs end with it.
        "LOCALSTACK_HOST": f"localhost:{port}",
        "DNS_ADDRESS": "0",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
    }
    with place.log.open("wb") as log:
        command = [VENV / "python", "-m", "localstack.runtime.main"]
        process = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=place.folder
        )
    state = {"pid": process.pid, "port": port, "endpoint": f"http://127.0.0.1:{port}"}
    place.state.write_text(json.dumps(state))
    end = time.monotonic() + UP_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(state["endpoint"] + "/_localstack/health", timeout=2):
                return state
        except OSError:
            time.sleep(0.2)
    raise Failed(f"LocalStack does not come up:\n{place.log.read_text(errors='replace')[-2_000:]}")


def tidelog(state, *args):
    # As the functions were: there is nothing left to compile.
    program = run([ROOT / "tests/built", "tidelog"]).strip()
    return run([program, "--store", state["store"], *args], env=environment(state))


def up(place, args):
    say("building the functions")
    run([ROOT / "infra/build", "local"])
    say("installing LocalStack, if need be")
    install()
    state = place.running()
    if not state:
        say("starting LocalStack")
        state = start(place, args.port)
    say("deploying infra/template.yaml")
    parameters = [f"--parameter={one}" for one in ["AutoCreatePartitions=3", "OtlpTopic=otlp", *args.parameter]]
    command = [VENV / "python", ROOT / "infra/deploy.py", "deploy", "--stack", STACK, *parameters]
    outputs = json.loads(run(command, env=environment(state)))
    state |= {
        "ingest_url": outputs["IngestUrl"].rstrip("/"),
        "fetch_url": outputs["FetchUrl"].rstrip("/"),
        # The region is in it; the endpoint is this machine's.
        "store": f"{outputs['Store']}&endpoint={state['endpoint']}",
        "bucket": outputs["Bucket"],
        "table": outputs["Table"],
    }
    place.state.write_text(json.dumps(state))
    tidelog(state, "init")
    tell(state, args)
    if args.output == "text":
        say("What LocalStack says follows; Ctrl-C ends this, and leaves it running.\n")
        logs(place, args)


def tell(state, args):
    told = {name: state[name] for name in ("ingest_url", "fetch_url", "store")}
    if args.output == "json":
        print(json.dumps(told))
        return
    proxy = state["endpoint"]
    print(f"""
Tidelog runs on this machine. Nothing is signed, and nothing is kept when it ends.

  ingest  {told["ingest_url"]}
  fetch   {told["fetch_url"]}
  store   {told["store"]}

Try it (the names end with .localhost: curl knows them, other programs go through the proxy {proxy}):

  curl -sS -H 'content-type: text/plain' --data-binary $'first\\nsecond\\n' {told["ingest_url"]}/v1/topics/app/records
  curl -sS {told["fetch_url"]}/v1/topics/app
  export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
  tidelog --store '{told["store"]}' consume app --until end

`just localstack down` ends it.
""", flush=True)


def status(place, args):
    state = place.running()
    if not state or "store" not in state:
        raise Failed("it does not run: `just localstack up`")
    tell(state, args)


def needed(place):
    state = place.running()
    if not state or "store" not in state:
        raise Failed("it does not run: `just localstack up`")
    return state


def logs(place, _):
    needed(place)
    os.execvp("tail", ["tail", "-n", "50", "-F", str(place.log)])


def seed(place, args):
    state = needed(place)
    topics = [topic["topic"] for topic in json.loads(tidelog(state, "topic", "list", "--output", "json"))]
    if args.topic not in topics:
        tidelog(state, "topic", "create", args.topic, "--partitions", "3")
    shipped = json.loads(tidelog(state, "produce", args.topic, str(pathlib.Path(args.file).resolve()), "--output", "json"))
    say(f"{shipped['acked']} lines are in {args.topic}")


def reset(place, _):
    state = needed(place)
    for topic in json.loads(tidelog(state, "topic", "list", "--output", "json")):
        tidelog(state, "topic", "delete", topic["topic"])


def down(place, _):
    state = place.read()
    if state and alive(state["pid"]):
        # It ends DynamoDB Local and the functions itself.
        os.kill(state["pid"], signal.SIGTERM)
        end = time.monotonic() + DOWN_SECONDS
        while alive(state["pid"]) and time.monotonic() < end:
            try:
                os.waitpid(state["pid"], os.WNOHANG)
            except ChildProcessError:
                pass
            time.sleep(0.1)
    if state:
        try:
            # Whatever it left behind has its session.
            os.killpg(state["pid"], signal.SIGKILL)
        except ProcessLookupError:
            pass
    shutil.rmtree(place.folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description="Tidelog on LocalStack, without Docker.")
    parser.add_argument("--name", default="stack", help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = {
        verb: verbs.add_parser(verb, help=words, description=words)
        for verb, words in (
            ("up", "start LocalStack and deploy"),
            ("status", "say what runs, and where"),
            ("logs", "follow what LocalStack says"),
            ("seed", "ship a file's lines to a topic, which is made"),
            ("reset", "delete every topic"),
            ("down", "stop all of it; nothing is left"),
        )
    }
    for verb in ("up", "status"):
        made[verb].add_argument("--output", choices=("text", "json"), default="text")
    made["up"].add_argument("--port", type=int, default=4566, help="where LocalStack listens (4566); 0: any that is free")
    made["up"].add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="of the template")
    made["seed"].add_argument("topic")
    made["seed"].add_argument("file")
    args = parser.parse_args()
    if args.verb == "up" and args.port == 0:
        args.port = free_port()
    place = Place(args.name)
    verb = {"up": up, "status": status, "logs": logs, "seed": seed, "reset": reset, "down": down}[args.verb]
    try:
        verb(place, args)
    except Failed as failed:
        say(f"localstack: {failed}")
        sys.exit(1)


if __name__ == "__main__":
    main()
