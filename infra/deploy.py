"""Deploys `template.yaml`, or takes all of it away. `just deploy` and `just destroy` run it.

    deploy.py deploy  [--stack tidelog] [--artifacts BUCKET] [--parameter NAME=VALUE]…
    deploy.py destroy [--stack tidelog] [--yes]

Credentials and region as AWS's own tools find them; `AWS_ENDPOINT_URL` for an emulator. The functions must have been
built (`infra/build`). Prints the stack's outputs as JSON. After a first deployment `tidelog --store STORE init` begins the log.
"""

import argparse
import hashlib
import io
import json
import pathlib
import re
import sys
import time
import zipfile

import boto3
from botocore.exceptions import BotoCoreError, ClientError

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "infra/template.yaml"
FUNCTIONS = ("ingest", "fetch", "upkeep")
# What AWS takes as a function's code over its API, packed.
ZIP_BYTES_MAX = 50 << 20


class Failed(Exception):
    pass


def say(words):
    print(words, file=sys.stderr, flush=True)


def zipped(name):
    """The function's code: one executable file. The same bytes give the same zip, and so no new deployment."""
    bootstrap = ROOT / "target/deploy" / name / "bootstrap"
    if not bootstrap.is_file():
        raise Failed(f"{bootstrap.relative_to(ROOT)} is not there: run `infra/build` first")
    entry = zipfile.ZipInfo("bootstrap", (1980, 1, 1, 0, 0, 0))
    entry.external_attr, entry.compress_type = 0o100755 << 16, zipfile.ZIP_DEFLATED
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(entry, bootstrap.read_bytes())
    if packed.tell() > ZIP_BYTES_MAX:
        raise Failed(f"{name} has {packed.tell()} bytes packed, limit {ZIP_BYTES_MAX}: build it with the profile `lambda`")
    return packed.getvalue()


def upload(bucket):
    """Puts the code where CloudFormation finds it; the template with its places in it."""
    s3, template = boto3.client("s3"), TEMPLATE.read_text()
    for name in FUNCTIONS:
        code = zipped(name)
        key = f"tidelog/{name}-{hashlib.sha256(code).hexdigest()[:32]}.zip"
        s3.put_object(Bucket=bucket, Key=key, Body=code)
        place = f"CodeUri: ../target/deploy/{name}\n"
        if template.count(place) != 1:
            raise Failed(f"the template must name {place.strip()} once")
        template = template.replace(place, f"CodeUri: s3://{bucket}/{key}\n")
    return template


def artifacts(args):
    """The bucket for the code: the one that is named, else one of the stack's own."""
    if args.artifacts:
        return args.artifacts
    s3, region = boto3.client("s3"), boto3.session.Session().region_name
    bucket = own_artifacts(args.stack)
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError:
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=bucket, **where)
    return bucket


def own_artifacts(stack):
    account = boto3.client("sts").get_caller_identity()["Account"]
    return f"{stack}-artifacts-{account}-{boto3.session.Session().region_name}".lower()


def find(cloudformation, stack):
    try:
        return cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def wait(cloudformation, stack):
    """Until the stack is still; `None`: it is gone."""
    while (found := find(cloudformation, stack)) and found["StackStatus"].endswith("_IN_PROGRESS"):
        time.sleep(1)
    return found


def why(cloudformation, stack):
    events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
    failed = [event for event in events if event["ResourceStatus"].endswith("_FAILED")]
    words = [f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}" for event in failed]
    return "; ".join(words) or "no event says why"


def deploy(args):
    cloudformation = boto3.client("cloudformation")
    template = upload(artifacts(args))
    # One that is named again counts.
    given = dict(args.parameter)
    parameters = [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()]
    found = wait(cloudformation, args.stack)
    if found and found["StackStatus"] in ("REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE"):
        raise Failed(f"the stack {args.stack} is in {found['StackStatus']}: `just destroy` it first")
    for parameter in found["Parameters"] if found and "Parameters" in found else []:
        # What was said at an earlier deployment still holds.
        if parameter["ParameterKey"] not in given:
            parameters.append({"ParameterKey": parameter["ParameterKey"], "UsePreviousValue": True})
    request = {
        "StackName": args.stack,
        "TemplateBody": template,
        "Parameters": parameters,
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    }
    say(f"{'updating' if found else 'creating'} the stack {args.stack}")
    try:
        if found:
            cloudformation.update_stack(**request)
        else:
            cloudformation.create_stack(**request)
    except ClientError as error:
        if "No updates are to be performed" not in str(error):
            raise
    found = wait(cloudformation, args.stack)
    if not found or found["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        status = found["StackStatus"] if found else "gone"
        raise Failed(f"the stack {args.stack} is {status}: {why(cloudformation, args.stack)}")
    print(json.dumps(outputs(found), indent=2))


def outputs(stack):
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def empty(bucket):
    """Deletes every version of everything."""
    s3 = boto3.client("s3")
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = page.get("Versions", []) + page.get("DeleteMarkers", [])
        keys = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
        if keys:
            s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})


def destroy(args):
    cloudformation = boto3.client("cloudformation")
    found = wait(cloudformation, args.stack)
    if not found:
        raise Failed(f"there is no stack {args.stack}")
    places = outputs(found)
    if not args.yes:
        say(f"this deletes the log in {places.get('Bucket')} and {places.get('Table')} for good, with every record in it.")
        if input("the stack's name, to go on: ") != args.stack:
            raise Failed("nothing was deleted")
    if table := places.get("Table"):
        boto3.client("dynamodb").update_table(TableName=table, DeletionProtectionEnabled=False)
    if bucket := places.get("Bucket"):
        empty(bucket)
    cloudformation.delete_stack(StackName=args.stack)
    left = wait(cloudformation, args.stack)
    if left and left["StackStatus"] != "DELETE_COMPLETE":
        raise Failed(f"the stack {args.stack} is {left['StackStatus']}: {why(cloudformation, args.stack)}")
    own = own_artifacts(args.stack)
    try:
        empty(own)
        boto3.client("s3").delete_bucket(Bucket=own)
    except ClientError as error:
        # Another bucket was named for the code.
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise
    say(f"the stack {args.stack} is gone, and all that it held")


def parameter(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def stack_name(text):
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]{0,30}", text):
        raise argparse.ArgumentTypeError("1 to 31 of a-z A-Z 0-9 and -, a letter first")
    return text


def main():
    parser = argparse.ArgumentParser(description="Deploys Tidelog, or takes all of it away.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, words in (("deploy", "create or update the stack"), ("destroy", "delete it, and the log with it")):
        one = verbs.add_parser(verb, help=words, description=words)
        one.add_argument("--stack", default="tidelog", type=stack_name, help="its name (tidelog)")
        if verb == "deploy":
            one.add_argument("--artifacts", metavar="BUCKET", help="where the code goes; unless given, a bucket is made")
            one.add_argument("--parameter", metavar="NAME=VALUE", action="append", default=[], type=parameter)
        else:
            one.add_argument("--yes", action="store_true", help="do not ask")
    args = parser.parse_args()
    try:
        {"deploy": deploy, "destroy": destroy}[args.verb](args)
    except (Failed, ClientError, BotoCoreError) as error:
        say(f"{args.verb}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
