"""What S3 clients expect of the gateway, asked with boto3: sections by name, all of them without one.

Environment: S3_URL, S3_ACCESS_KEY, S3_SECRET_KEY. Ends 0 when everything was as expected; prints what was not.
"""
import hashlib
import os
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

URL, KEY, SECRET = os.environ["S3_URL"], os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"]
failures = 0


def client(key=KEY, secret=SECRET, **config):
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}, **config)
    return boto3.client("s3", endpoint_url=URL, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1", config=config)


s3 = client()


def check(name, got, want):
    global failures
    if got != want:
        failures += 1
        print(f"{name}: got {got!r:.300}, want {want!r:.300}")


def error(call, *args, **kwargs):
    """The code and status of the error that a call ends with; None where it ends well."""
    try:
        call(*args, **kwargs)
    except ClientError as e:
        return e.response["Error"]["Code"], e.response["ResponseMetadata"]["HTTPStatusCode"]
    return None


def body(bucket, key, **more):
    return s3.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


def md5(data):
    return hashlib.md5(data).hexdigest()


BIG = bytes((i * 7 + i // 251) % 256 for i in range(11_000_000))
KEYS = ["a", "a/b", "a//b", "/lead", "trail/", "a.txt", "a0", ".s3~x", "..", "ü", "u\u0308", "e\u0301", "x" * 600, "dir with space/é+&?#%", "d/e/f/g"]


def buckets():
    check("none", s3.list_buckets()["Buckets"], [])
    s3.create_bucket(Bucket="first")
    check("again", error(s3.create_bucket, Bucket="first"), ("BucketAlreadyOwnedByYou", 409))
    check("listed", [b["Name"] for b in s3.list_buckets()["Buckets"]], ["first"])
    check("missing", error(s3.head_bucket, Bucket="missing"), ("404", 404))
    check("location", s3.get_bucket_location(Bucket="first").get("LocationConstraint"), None)
    s3.put_object(Bucket="first", Key="x", Body=b"1")
    check("not empty", error(s3.delete_bucket, Bucket="first"), ("BucketNotEmpty", 409))
    s3.delete_object(Bucket="first", Key="x")
    s3.delete_bucket(Bucket="first")
    check("gone", error(s3.delete_bucket, Bucket="first"), ("NoSuchBucket", 404))


def objects():
    s3.create_bucket(Bucket="objects")
    stored = s3.put_object(Bucket="objects", Key="a", Body=b"hello", ContentType="text/plain", Metadata={"x": "y"}, CacheControl="no-cache")
    check("etag", stored["ETag"], f'"{md5(b"hello")}"')
    got = s3.get_object(Bucket="objects", Key="a")
    check("body", got["Body"].read(), b"hello")
    check("kept", (got["ContentType"], got["Metadata"], got["CacheControl"]), ("text/plain", {"x": "y"}, "no-cache"))
    check("big", s3.put_object(Bucket="objects", Key="dir/big", Body=BIG)["ETag"], f'"{md5(BIG)}"')
    check("big body", md5(body("objects", "dir/big")), md5(BIG))
    for range_, want in [("0-0", BIG[:1]), ("5-", BIG[5:]), ("-7", BIG[-7:]), ("4194300-4194310", BIG[4194300:4194311]), ("100-9000000", BIG[100:9000001])]:
        got = s3.get_object(Bucket="objects", Key="dir/big", Range=f"bytes={range_}")
        check(range_, (got["Body"].read() == want, got["ResponseMetadata"]["HTTPStatusCode"]), (True, 206))
    check("no range", error(s3.get_object, Bucket="objects", Key="a", Range="bytes=10-"), ("InvalidRange", 416))
    check("no key", error(s3.get_object, Bucket="objects", Key="zz"), ("NoSuchKey", 404))
    check("no bucket", error(s3.get_object, Bucket="missing", Key="zz"), ("NoSuchBucket", 404))
    etag = s3.head_object(Bucket="objects", Key="a")["ETag"]
    check("not modified", error(s3.get_object, Bucket="objects", Key="a", IfNoneMatch=etag), ("304", 304))
    check("other", error(s3.get_object, Bucket="objects", Key="a", IfMatch='"x"'), ("PreconditionFailed", 412))
    check("wrong md5", error(s3.put_object, Bucket="objects", Key="q", Body=b"x", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA=="), ("BadDigest", 400))
    check("nothing of it", error(s3.head_object, Bucket="objects", Key="q"), ("404", 404))
    for algorithm in ["CRC32", "SHA1", "SHA256"]:
        stored = s3.put_object(Bucket="objects", Key=algorithm, Body=BIG[:100_000], ChecksumAlgorithm=algorithm)
        head = s3.head_object(Bucket="objects", Key=algorithm, ChecksumMode="ENABLED")
        check(algorithm, (head["Checksum" + algorithm], stored["Checksum" + algorithm] is not None), (stored["Checksum" + algorithm], True))
    s3.copy_object(Bucket="objects", Key="copy", CopySource={"Bucket": "objects", "Key": "dir/big"})
    check("copy", body("objects", "copy") == BIG, True)
    s3.copy_object(Bucket="objects", Key="copy", CopySource={"Bucket": "objects", "Key": "copy"}, MetadataDirective="REPLACE", Metadata={"n": "1"})
    check("replaced", s3.head_object(Bucket="objects", Key="copy")["Metadata"], {"n": "1"})
    check("to itself", error(s3.copy_object, Bucket="objects", Key="copy", CopySource={"Bucket": "objects", "Key": "copy"}), ("InvalidRequest", 400))
    s3.put_object_tagging(Bucket="objects", Key="copy", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    check("tags", s3.get_object_tagging(Bucket="objects", Key="copy")["TagSet"], [{"Key": "k", "Value": "v"}])
    s3.delete_object_tagging(Bucket="objects", Key="copy")
    check("no tags", s3.get_object_tagging(Bucket="objects", Key="copy")["TagSet"], [])
    got = s3.get_object_attributes(Bucket="objects", Key="dir/big", ObjectAttributes=["ETag", "ObjectSize"])
    check("attributes", (got["ObjectSize"], got["ETag"].strip('"')), (len(BIG), md5(BIG)))
    check("public", error(s3.put_object, Bucket="objects", Key="p", Body=b"", ACL="public-read"), ("AccessControlListNotSupported", 400))
    check("deleted", error(s3.delete_object, Bucket="objects", Key="nothing"), None)


def expected(keys, prefix, delimiter):
    found, groups = [], []
    for key in keys:
        if key.startswith(prefix):
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            if at < 0:
                found.append(key)
            elif key[: at + len(delimiter)] not in groups:
                groups.append(key[: at + len(delimiter)])
    return found, groups


def listed(**asked):
    """All keys and groups of a listing, and how many pages that took."""
    found, groups, pages, token = [], [], 0, {}
    while True:
        page = s3.list_objects_v2(Bucket="keys", **asked, **token)
        found += [o["Key"] for o in page.get("Contents", [])]
        groups += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
        pages += 1
        if not page["IsTruncated"]:
            return (found, groups), pages
        token = {"ContinuationToken": page["NextContinuationToken"]}


def keys():
    s3.create_bucket(Bucket="keys")
    for i, key in enumerate(KEYS):
        s3.put_object(Bucket="keys", Key=key, Body=str(i).encode())
    for i, key in enumerate(KEYS):
        check(f"key {key[:30]!r}", body("keys", key), str(i).encode())
    ordered = sorted(KEYS, key=lambda k: k.encode())
    check("version 1", [o["Key"] for o in s3.list_objects(Bucket="keys")["Contents"]], ordered)
    for prefix in ["", "a", "a/", "d", "dir", "x", "none", "/"]:
        for delimiter in ["/", "", "i", "r/"]:
            want = expected(ordered, prefix, delimiter)
            check(f"{prefix!r} {delimiter!r}", listed(Prefix=prefix, Delimiter=delimiter)[0], want)
            got, pages = listed(Prefix=prefix, Delimiter=delimiter, MaxKeys=1)
            check(f"{prefix!r} {delimiter!r} by one", (got, pages), (want, max(1, len(want[0]) + len(want[1]))))
    check("after", listed(StartAfter="a.txt")[0][0], [k for k in ordered if k.encode() > b"a.txt"])
    check("too long", error(s3.put_object, Bucket="keys", Key="k" * 1025, Body=b""), ("KeyTooLongError", 400))
    gone = s3.delete_objects(Bucket="keys", Delete={"Objects": [{"Key": k} for k in KEYS]})
    check("all deleted", len(gone["Deleted"]), len(KEYS))
    check("nothing left", listed()[0], ([], []))
    s3.delete_bucket(Bucket="keys")


PARTS = [BIG[: 5 << 20], BIG[5 << 20 : 10 << 20], BIG[10 << 20 :]]


def complete(bucket, key, upload, etags):
    parts = [{"PartNumber": n, "ETag": etag} for n, etag in etags]
    return s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def multipart():
    s3.create_bucket(Bucket="multi")
    upload = s3.create_multipart_upload(Bucket="multi", Key="m", Metadata={"m": "p"}, ContentType="x/y")["UploadId"]
    etags = [(n, s3.upload_part(Bucket="multi", Key="m", UploadId=upload, PartNumber=n, Body=p)["ETag"]) for n, p in enumerate(PARTS, 1)]
    parts = s3.list_parts(Bucket="multi", Key="m", UploadId=upload)["Parts"]
    check("parts", [(p["PartNumber"], p["Size"]) for p in parts], [(n, len(p)) for n, p in enumerate(PARTS, 1)])
    check("uploads", [u["Key"] for u in s3.list_multipart_uploads(Bucket="multi")["Uploads"]], ["m"])
    check("order", error(complete, "multi", "m", upload, etags[::-1]), ("InvalidPartOrder", 400))
    check("part", error(complete, "multi", "m", upload, [(1, '"x"')]), ("InvalidPart", 400))
    want = md5(b"".join(hashlib.md5(p).digest() for p in PARTS)) + "-3"
    check("etag", complete("multi", "m", upload, etags)["ETag"], f'"{want}"')
    check("once more", complete("multi", "m", upload, etags)["ETag"], f'"{want}"')
    got = s3.get_object(Bucket="multi", Key="m")
    check("whole", got["Body"].read() == BIG, True)
    check("kept", (got["Metadata"], got["ContentType"], got["ETag"]), ({"m": "p"}, "x/y", f'"{want}"'))
    got = s3.get_object(Bucket="multi", Key="m", PartNumber=2)
    check("part 2", (got["Body"].read() == PARTS[1], got["PartsCount"]), (True, 3))
    check("gone", error(s3.list_parts, Bucket="multi", Key="m", UploadId=upload), ("NoSuchUpload", 404))
    check("none under way", s3.list_multipart_uploads(Bucket="multi").get("Uploads"), None)
    check("no key of it", [o["Key"] for o in s3.list_objects_v2(Bucket="multi")["Contents"]], ["m"])
    small = s3.create_multipart_upload(Bucket="multi", Key="s")["UploadId"]
    etags = [(n, s3.upload_part(Bucket="multi", Key="s", UploadId=small, PartNumber=n, Body=b"x")["ETag"]) for n in [1, 2]]
    check("too small", error(complete, "multi", "s", small, etags), ("EntityTooSmall", 400))
    copied = s3.upload_part_copy(Bucket="multi", Key="s", UploadId=small, PartNumber=1, CopySource={"Bucket": "multi", "Key": "m"}, CopySourceRange="bytes=1-5242881")
    complete("multi", "s", small, [(1, copied["CopyPartResult"]["ETag"]), etags[1]])
    check("of a copy", body("multi", "s") == BIG[1:5242882] + b"x", True)
    ended = s3.create_multipart_upload(Bucket="multi", Key="e")["UploadId"]
    s3.abort_multipart_upload(Bucket="multi", Key="e", UploadId=ended)
    check("aborted", error(s3.abort_multipart_upload, Bucket="multi", Key="e", UploadId=ended), ("NoSuchUpload", 404))


def versions():
    s3.create_bucket(Bucket="ver")
    s3.put_bucket_versioning(Bucket="ver", VersioningConfiguration={"Status": "Enabled"})
    one, two = (s3.put_object(Bucket="ver", Key="o", Body=b)["VersionId"] for b in [b"1", b"2"])
    mark = s3.delete_object(Bucket="ver", Key="o")
    check("mark", mark["DeleteMarker"], True)
    check("deleted", error(s3.get_object, Bucket="ver", Key="o"), ("NoSuchKey", 404))
    check("old", body("ver", "o", VersionId=one), b"1")

    def known():
        page = s3.list_object_versions(Bucket="ver")
        return [v["VersionId"] for v in page.get("Versions", [])], [m["VersionId"] for m in page.get("DeleteMarkers", [])]

    check("all", known(), ([two, one], [mark["VersionId"]]))
    check("not listed", s3.list_objects_v2(Bucket="ver")["KeyCount"], 0)
    s3.delete_object(Bucket="ver", Key="o", VersionId=mark["VersionId"])
    check("back", body("ver", "o"), b"2")
    three = s3.put_object(Bucket="ver", Key="o", Body=b"3")["VersionId"]
    s3.delete_object(Bucket="ver", Key="o", VersionId=three)
    check("the one before", (body("ver", "o"), known()), (b"2", ([two, one], [])))
    s3.delete_object(Bucket="ver", Key="o", VersionId=one)
    check("one left", known(), ([two], []))
    s3.delete_object(Bucket="ver", Key="o", VersionId=two)
    check("none left", known(), ([], []))
    s3.delete_bucket(Bucket="ver")


def settings():
    s3.create_bucket(Bucket="set")
    check("no cors", error(s3.get_bucket_cors, Bucket="set"), ("NoSuchCORSConfiguration", 404))
    rules = [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]
    s3.put_bucket_cors(Bucket="set", CORSConfiguration={"CORSRules": rules})
    check("cors", s3.get_bucket_cors(Bucket="set")["CORSRules"], rules)
    asked = urllib.request.Request(URL + "/set/x", method="OPTIONS", headers={"Origin": "http://e", "Access-Control-Request-Method": "GET"})
    check("preflight", urllib.request.urlopen(asked).headers["access-control-allow-origin"], "*")
    s3.put_bucket_tagging(Bucket="set", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    check("tags", s3.get_bucket_tagging(Bucket="set")["TagSet"], [{"Key": "a", "Value": "b"}])
    rules = [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "x"}, "Expiration": {"Days": 1}}]
    s3.put_bucket_lifecycle_configuration(Bucket="set", LifecycleConfiguration={"Rules": rules})
    check("lifecycle", s3.get_bucket_lifecycle_configuration(Bucket="set")["Rules"], rules)
    check("acl", s3.get_bucket_acl(Bucket="set")["Grants"][0]["Permission"], "FULL_CONTROL")
    # Settings that are changed at the same time do not undo each other.
    changes = [
        lambda: s3.put_bucket_tagging(Bucket="set", Tagging={"TagSet": [{"Key": "new", "Value": "1"}]}),
        lambda: s3.put_bucket_versioning(Bucket="set", VersioningConfiguration={"Status": "Enabled"}),
        lambda: s3.delete_bucket_lifecycle(Bucket="set"),
        lambda: s3.put_public_access_block(Bucket="set", PublicAccessBlockConfiguration={"BlockPublicAcls": True}),
        lambda: s3.delete_bucket_cors(Bucket="set"),
    ]
    with ThreadPoolExecutor(len(changes)) as pool:
        [done.result() for done in [pool.submit(change) for change in changes]]
    check("tags kept", s3.get_bucket_tagging(Bucket="set")["TagSet"], [{"Key": "new", "Value": "1"}])
    check("versioning kept", s3.get_bucket_versioning(Bucket="set")["Status"], "Enabled")
    check("block kept", s3.get_public_access_block(Bucket="set")["PublicAccessBlockConfiguration"]["BlockPublicAcls"], True)
    check("no lifecycle", error(s3.get_bucket_lifecycle_configuration, Bucket="set"), ("NoSuchLifecycleConfiguration", 404))
    check("cors gone", error(s3.get_bucket_cors, Bucket="set"), ("NoSuchCORSConfiguration", 404))
    acl = s3.get_bucket_acl(Bucket="set")
    same = {"Owner": acl["Owner"], "Grants": acl["Grants"]}
    check("same acl", error(s3.put_bucket_acl, Bucket="set", AccessControlPolicy=same), None)
    anybody = {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"}
    more = {"Owner": acl["Owner"], "Grants": acl["Grants"] + [{"Grantee": anybody, "Permission": "READ"}]}
    check("more acl", error(s3.put_bucket_acl, Bucket="set", AccessControlPolicy=more), ("AccessControlListNotSupported", 400))
    check("policy", error(s3.get_bucket_policy, Bucket="set"), ("NoSuchBucketPolicy", 404))
    counted = urllib.request.urlopen(URL + "/metrics").read().decode()
    check("metrics", 'shardkeep_s3_requests_total{method="PUT",status="200"}' in counted and "/set" not in counted and KEY not in counted, True)
    check("owner", error(s3.head_bucket, Bucket="set", ExpectedBucketOwner="somebody"), ("403", 403))
    check("website", error(s3.put_bucket_website, Bucket="set", WebsiteConfiguration={"IndexDocument": {"Suffix": "i"}}), ("NotImplemented", 501))


def signatures():
    s3.create_bucket(Bucket="sig")
    s3.put_object(Bucket="sig", Key="a b/é", Body=b"signed")
    for signer in [client(signature_version="s3v4"), s3]:
        url = signer.generate_presigned_url("get_object", Params={"Bucket": "sig", "Key": "a b/é"}, ExpiresIn=60)
        check("presigned", urllib.request.urlopen(url).read(), b"signed")
        try:
            urllib.request.urlopen(url.replace("/sig/a", "/sig/b"))
            check("forged", True, False)
        except urllib.error.HTTPError as e:
            check("forged", e.code, 403)
    post = s3.generate_presigned_post("sig", "posted", ExpiresIn=60)
    parts = [f'--XX\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in post["fields"].items()]
    form = "".join(parts) + '--XX\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nposted!\r\n--XX--\r\n'
    asked = urllib.request.Request(post["url"], data=form.encode(), headers={"Content-Type": "multipart/form-data; boundary=XX"})
    check("post", (urllib.request.urlopen(asked).status, body("sig", "posted")), (204, b"posted!"))
    check("wrong secret", error(client(secret="x" * 40).list_buckets), ("SignatureDoesNotMatch", 403))
    check("unknown key", error(client(key="nobody").list_buckets), ("InvalidAccessKeyId", 403))
    try:
        urllib.request.urlopen(URL + "/sig/posted")
        check("unsigned", True, False)
    except urllib.error.HTTPError as e:
        check("unsigned", e.code, 403)


def history():
    """The versions of a key while many change it: none is lost, none comes back."""
    s3.create_bucket(Bucket="hist")
    s3.put_bucket_versioning(Bucket="hist", VersioningConfiguration={"Status": "Enabled"})

    def all_of(key):
        found = s3.list_object_versions(Bucket="hist", Prefix=key)
        return [(v["Key"], v["VersionId"]) for v in found.get("Versions", []) + found.get("DeleteMarkers", [])]

    def at_once(*calls):
        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(lambda call: error(call[0], Bucket="hist", **call[1]), calls))

    for i in range(4):
        s3.put_object(Bucket="hist", Key="k", Body=b"%d" % i)
    s3.delete_object(Bucket="hist", Key="k")
    named = [{"Key": key, "VersionId": version} for key, version in all_of("k")]
    check("five", len(named), 5)
    gone = s3.delete_objects(Bucket="hist", Delete={"Objects": named[::-1]})
    check("all gone", (len(gone.get("Deleted", [])), gone.get("Errors", []), all_of("k")), (5, [], []))
    for i in range(4):
        s3.put_object(Bucket="hist", Key="k", Body=b"%d" % i)
    check("in parallel", at_once(*((s3.delete_object, {"Key": k, "VersionId": v}) for k, v in all_of("k"))), [None] * 4)
    check("all gone again", all_of("k"), [])
    s3.put_object(Bucket="hist", Key="m", Body=b"0")
    check("marks", at_once(*[(s3.delete_object, {"Key": "m"})] * 5), [None] * 5)
    check("every mark", len(all_of("m")), 6)
    for i in range(5):
        key = f"both{i}"
        s3.put_object(Bucket="hist", Key=key, Body=b"0")
        check("put and delete", at_once((s3.put_object, {"Key": key, "Body": b"1"}), (s3.delete_object, {"Key": key})), [None, None])
        check("neither is lost", len(all_of(key)), 3)
    check("no version", error(s3.get_object, Bucket="hist", Key="m", VersionId="what"), ("InvalidArgument", 400))
    # Keys do not know of each other, though files and folders do.
    s3.create_bucket(Bucket="plain")
    for bucket in ["hist", "plain"]:
        for i in range(8):
            pair = [(s3.put_object, {"Key": f"p{i}", "Body": b"1"}), (s3.put_object, {"Key": f"p{i}/x", "Body": b"2"})]
            with ThreadPoolExecutor(2) as pool:
                check("beside and below", list(pool.map(lambda c: error(c[0], Bucket=bucket, **c[1]), pair)), [None, None])
            check("both read", (body(bucket, f"p{i}"), body(bucket, f"p{i}/x")), (b"1", b"2"))


def raw(method, url, headers=None, data=None):
    asked = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.headers, e.read()


def presigned(call, **params):
    return client(signature_version="s3v4").generate_presigned_url(call, Params=params, ExpiresIn=60)


def posted(post, fields, file, name="x"):
    parts = "".join(f'--XX\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in {**post["fields"], **fields}.items())
    head = f'{parts}--XX\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Transfer-Encoding: binary\r\n\r\n'
    whole = head.encode() + file + b"\r\n--XX--\r\n"
    return raw("POST", post["url"], {"Content-Type": "multipart/form-data; boundary=XX"}, whole)


def refusals():
    """What looks like something else, or says more than was signed, is refused and changes nothing."""
    s3.create_bucket(Bucket="ref")
    s3.put_object(Bucket="ref", Key="o", Body=b"here")
    status, _, told = raw("PUT", presigned("put_object", Bucket="ref", Key="stolen"), {"x-amz-copy-source": "ref/o"}, b"")
    check("unsigned header", (status, b"not signed" in told), (403, True))
    check("nothing stolen", error(s3.head_object, Bucket="ref", Key="stolen"), ("404", 404))
    for url in [presigned("delete_bucket", Bucket="ref"), presigned("delete_object", Bucket="ref", Key="o")]:
        status, _, told = raw("DELETE", url.replace("?", "?acl&", 1))
        check("subresource", (status, b"MethodNotAllowed" in told, b"<RequestId>" in told, b"<Resource>/ref" in told), (405, True, True, True))
    check("still there", body("ref", "o"), b"here")
    for header, value in [("x-amz-server-side-encryption-customer-algorithm", "AES256"), ("x-amz-checksum-sha512", "x")]:
        def add(request, **_):
            request.headers[header] = value
        other = client()
        other.meta.events.register("before-sign.s3.PutObject", add)
        check(header, error(other.put_object, Bucket="ref", Key="o", Body=b"other")[1] >= 400, True)
    check("copied over", error(s3.copy_object, Bucket="ref", Key="o", CopySource="ref/o", MetadataDirective="SOME"), ("InvalidArgument", 400))
    one = {"Objects": [{"Key": "o"}]}
    def forge(request, **_):
        request.headers["Content-MD5"] = "1B2M2Y8AsgTpgAmY7PhCfg=="
    other = client()
    other.meta.events.register("before-sign.s3.DeleteObjects", forge)
    check("digest of a document", error(other.delete_objects, Bucket="ref", Delete=one), ("BadDigest", 400))
    # After a refused body the connection is not out of step.
    for i in range(40):
        check("refused", error(s3.put_object, Bucket="nowhere", Key="k", Body=b"x" * (i % 3 * 500 + 1)), ("NoSuchBucket", 404))
        check("and the next", body("ref", "o"), b"here")
    for odd in ["bytes=5-2", "bites=0-1", "bytes=0-1,3-3"]:
        check(odd, (body("ref", "o", Range=odd), s3.get_object(Bucket="ref", Key="o", Range="bytes=1-2")["Body"].read()), (b"here", b"er"))
    check("partial head", s3.head_object(Bucket="ref", Key="o", Range="bytes=1-2")["ResponseMetadata"]["HTTPStatusCode"], 206)


def forms():
    s3.create_bucket(Bucket="form")
    big = BIG * 6
    signer = client(signature_version="s3v4")
    tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
    conditions = [["starts-with", "$tagging", ""], ["content-length-range", 1, len(big)], {"success_action_status": "201"}]
    post = signer.generate_presigned_post("form", "up/${filename}", Conditions=conditions, ExpiresIn=60)
    fields = {"tagging": tags, "success_action_status": "201"}
    status, headers, told = posted(post, fields, big, "C:\\dir\\a b.txt")
    check("201", (status, headers["ETag"], b"/form/up/a%20b.txt</Location>" in told), (201, f'"{md5(big)}"', True))
    check("streamed", md5(body("form", "up/a b.txt")), md5(big))
    check("tags", s3.get_object_tagging(Bucket="form", Key="up/a b.txt")["TagSet"], [{"Key": "a", "Value": "b"}])
    for what, more, file, code in [
        ("too long", fields, big + b"x", b"EntityTooLarge"), ("too short", fields, b"", b"EntityTooSmall"),
        ("more", {**fields, "x-amz-meta-a": "b"}, b"x", b"Extra input fields"), ("other", {**fields, "key": "down/x"}, b"x", b"Policy Condition failed"),
        ("forged", {**fields, "policy": post["fields"]["policy"][:-8]}, b"x", b"SignatureDoesNotMatch"),
    ]:
        status, _, told = posted(post, more, file, "n")
        check(what, (status >= 400, code in told, error(s3.head_object, Bucket="form", Key="up/n")), (True, True, ("404", 404)))


ALL = [buckets, objects, keys, multipart, versions, settings, signatures, history, refusals, forms]
for section in ALL:
    if len(sys.argv) < 2 or section.__name__ in sys.argv[1:]:
        section()
sys.exit(1 if failures else 0)
