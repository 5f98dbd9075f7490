"""infra/template.yaml against infra/table.json (the table that `init` makes) and docs/RUNNING_ON_AWS.md (whose policies a
recorded run proves)."""

import json
import pathlib
import re
import sys

from cfnlint.decode import decode

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
template, problems = decode(str(ROOT / "infra/template.yaml"))
assert not problems, problems
resources = template["Resources"]


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"FAILED {what}: {got} is not {wanted}")
    print(f"ok: {what}")


def plain(value):
    """Without the marks that the decoder leaves."""
    return json.loads(json.dumps(value))


def rights(statements, shorten):
    found = set()
    for statement in statements:
        assert statement["Effect"] == "Allow", statement
        several = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        found |= {(action, shorten(resource)) for action in statement["Action"] for resource in several}
    return found


def of_template(resource):
    logs = dict.fromkeys(("IngestLogs.Arn", "FetchLogs.Arn", "UpkeepLogs.Arn"), "logs")
    names = {"Table.Arn": "table", "Bucket.Arn": "bucket", "Table.StreamArn": "stream"} | logs
    if resource == "*":
        return resource
    if "Fn::GetAtt" in resource:
        return names[".".join(resource["Fn::GetAtt"])]
    return resource["Fn::Sub"].replace("${Bucket.Arn}/${Prefix}/", "bucket/")


def of_page(resource):
    resource = resource.replace("arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE", "table")
    return resource.replace("arn:aws:s3:::BUCKET/PREFIX/", "bucket/").replace("arn:aws:s3:::BUCKET", "bucket")


def role(name):
    policies = plain(resources[name]["Properties"]["Policies"])
    return rights([s for policy in policies for s in policy["PolicyDocument"]["Statement"]], of_template)


table = plain(resources["Table"]["Properties"])
table.pop("TableName")
wanted = json.loads((ROOT / "infra/table.json").read_text())
check("the table can be protected", table.pop("DeletionProtectionEnabled"), {"Ref": "DeletionProtection"})
check("and is, unless asked otherwise", (template["Parameters"]["DeletionProtection"]["Default"], wanted.pop("DeletionProtectionEnabled")), ("true", True))
check("the table is that of infra/table.json", table, wanted)

page = (ROOT / "docs/RUNNING_ON_AWS.md").read_text()
policies = [json.loads(block)["Statement"] for block in re.findall(r"```json\n(.*?)```", page, re.S)]
read, write, _, upkeep = (rights(policy, of_page) for policy in policies)
logs = {("logs:CreateLogStream", "logs"), ("logs:PutLogEvents", "logs")}
check("ingest may read and write", role("IngestRole"), read | write | logs)
check("fetch may read, commit offsets and checkpoint", role("FetchRole"), (read | write | logs) - {("s3:PutObject", "bucket/l0/*")})
stream = {(f"dynamodb:{action}", "stream") for action in ("DescribeStream", "GetRecords", "GetShardIterator")}
stream |= {("dynamodb:ListStreams", "*")}
check("upkeep may do all but write segments", role("UpkeepRole"), (read | write | upkeep | stream | logs) - {("s3:PutObject", "bucket/l0/*")})
check("nobody else may delete", (role("IngestRole") | role("FetchRole")) & upkeep, set())
appends = resources["Upkeep"]["Properties"]["Events"]["Appends"]["Properties"]
passed = json.loads(appends["FilterCriteria"]["Filters"][0]["Pattern"])
check("only new commits that append wake upkeep", passed, {"eventName": ["INSERT"], "dynamodb": {"NewImage": {"hint": {"S": [{"prefix": "append"}]}}}})
for name in ("Ingest", "Fetch"):
    check(f"{name} asks who is asking", resources[name]["Properties"]["FunctionUrlConfig"]["AuthType"], "AWS_IAM")
