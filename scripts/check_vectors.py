#!/usr/bin/env python3
"""Opens testdata/formats/v1/*.json independently of the Rust code.

Written from docs/format.md: HKDF, Padmé, CBOR, BIP39, HPKE and X-Wing are spelled out here on top
of hmac/hashlib; only AES-GCM, ChaCha20-Poly1305, Ed25519, X25519, ML-KEM (package `cryptography`)
and BLAKE3 (package `blake3`) are taken from elsewhere. Prints "N passed, 0 failed" and exits 1 on
any failure. Missing packages are installed into target/check-vectors, never into the system.
"""
import hashlib
import hmac
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT / "testdata" / "formats" / "v1"


def packages():
    """Imports what is needed, in a venv of our own if the system lacks it."""
    try:
        import blake3  # noqa: F401
        import cryptography.hazmat.primitives.asymmetric.mlkem  # noqa: F401
    except ImportError:
        if os.environ.get("CHECK_VECTORS_VENV"):
            raise
        venv = ROOT / "target" / "check-vectors"
        python = venv / "bin" / "python3"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "blake3", "cryptography>=48"], check=True)
        os.execve(str(python), [str(python), __file__], dict(os.environ, CHECK_VECTORS_VENV="1"))


packages()
from blake3 import blake3  # noqa: E402
from cryptography.exceptions import InvalidSignature, InvalidTag  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey  # noqa: E402
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305  # noqa: E402
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: E402

RAW = (Encoding.Raw, PublicFormat.Raw)


# --- deterministic CBOR (RFC 8949 §4.2), the part that the formats use ---

def cbor(value):
    def head(major, n):
        for bits, extra in ((8, 24), (16, 25), (32, 26), (64, 27)):
            if n < 24:
                return bytes([major << 5 | n])
            if n < 1 << bits:
                return bytes([major << 5 | extra]) + n.to_bytes(bits // 8, "big")
        raise ValueError("integer too large")

    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, (bytes, bytearray)):
        return head(2, len(value)) + bytes(value)
    if isinstance(value, str):
        text = value.encode()
        return head(3, len(text)) + text
    return head(4, len(value)) + b"".join(cbor(v) for v in value)


def uncbor(data):
    """One value and what follows it; refuses every form but the canonical one."""
    def item(at):
        first = data[at]
        major, n, at = first >> 5, first & 31, at + 1
        if 24 <= n <= 27 and major < 6:
            size = 1 << (n - 24)
            n, at = int.from_bytes(data[at:at + size], "big"), at + size
        elif n > 27 or major == 6:
            raise ValueError("not deterministic CBOR")
        if major == 0:
            return n, at
        if major == 1:
            return -1 - n, at
        if major in (2, 3):
            if at + n > len(data):
                raise ValueError("cut off")
            part = bytes(data[at:at + n])
            return (part if major == 2 else part.decode()), at + n
        if major == 4:
            out = []
            for _ in range(n):
                value, at = item(at)
                out.append(value)
            return out, at
        return {20: False, 21: True, 22: None}[n], at

    value, end = item(0)
    if cbor(value) != data[:end]:
        raise ValueError("not canonical")
    return value, data[end:]


def whole(data):
    value, rest = uncbor(data)
    assert rest == b"", "bytes follow the record"
    return value


# --- hashes, derivation, sealing ---

def H(data):
    return blake3(data).digest()


def expand(prk, info, length, hash=hashlib.sha512):
    out, block, i = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([i]), hash).digest()
        out, i = out + block, i + 1
    return out[:length]


def derive(key, purpose, length=32):
    return expand(key, b"shardkeep/v1/derive\0" + purpose, length)


CELL, TAG = 16384, 16


def unseal(key, ctx, sealed):
    salt, commit, body = sealed[:24], sealed[24:56], sealed[56:]
    okm = expand(key, b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + ctx, 76)
    assert hmac.compare_digest(okm[44:], commit), "commitment"
    aead, nonce = AESGCM(okm[:32]), int.from_bytes(okm[32:44], "big")
    cells = [body[at:at + CELL + TAG] for at in range(0, len(body), CELL + TAG)]
    assert cells and len(cells[-1]) < CELL + TAG, "the last cell is shorter than full"
    return b"".join(aead.decrypt((nonce ^ i).to_bytes(12, "big"), c, None) for i, c in enumerate(cells))


def padme(n):
    n = max(n, 256)
    e = n.bit_length() - 1
    mask = (1 << (e - e.bit_length())) - 1
    return (n + mask) & ~mask


def text(n):
    return blake3(f"plaintext {n}".encode()).digest(length=n)


def signed(public, kind, body, signature):
    Ed25519PublicKey.from_public_bytes(public).verify(signature, b"shardkeep/v1/sig\0" + kind.encode() + b"\0" + body)


def refused(call, *args):
    try:
        call(*args)
    except (AssertionError, InvalidTag, InvalidSignature, ValueError, IndexError):
        return
    raise AssertionError("a changed vector was accepted")


def flip(data, at):
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def name_tag(dk, name):
    try:
        given = b"\1" + unicodedata.normalize("NFC", name.decode()).encode()
    except UnicodeDecodeError:
        given = b"\2" + name
    return hmac.new(derive(dk, b"name-tag"), given, hashlib.sha256).digest()[:16]


# --- X-Wing and HPKE (base mode, HKDF-SHA256, ChaCha20-Poly1305), for grants ---

def xwing_keys(seed):
    expanded = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


def xwing_public(seed):
    m, x = xwing_keys(seed)
    return m.public_key().public_bytes(*RAW) + x.public_key().public_bytes(*RAW)


def hpke_open(seed, enc, info, aad, sealed):
    m, x = xwing_keys(seed)
    ss_m = m.decapsulate(enc[:1088])
    ss_x = x.exchange(X25519PublicKey.from_public_bytes(enc[1088:]))
    shared = hashlib.sha3_256(ss_m + ss_x + enc[1088:] + x.public_key().public_bytes(*RAW) + b"\\.//^\\").digest()
    suite = b"HPKE" + bytes.fromhex("647a00010003")

    def extract(salt, label, ikm):
        return hmac.new(salt, b"HPKE-v1" + suite + label + ikm, hashlib.sha256).digest()

    def labeled(prk, label, data, n):
        return expand(prk, n.to_bytes(2, "big") + b"HPKE-v1" + suite + label + data, n, hashlib.sha256)

    zeros = bytes(32)
    context = b"\0" + extract(zeros, b"psk_id_hash", b"") + extract(zeros, b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    key, nonce = labeled(secret, b"key", context, 32), labeled(secret, b"base_nonce", context, 12)
    return ChaCha20Poly1305(key).decrypt(nonce, sealed, aad)


# --- the checks, one a vector ---

def load(name):
    def bytes_of(v):
        if isinstance(v, dict):
            return {k: (x if k in ("what", "type", "name_text", "words", "safety_number") else bytes_of(x)) for k, x in v.items()}
        if isinstance(v, list):
            return [bytes_of(x) for x in v]
        if isinstance(v, str):
            try:
                return bytes.fromhex(v)
            except ValueError:
                return v
        return v

    return bytes_of(json.loads((VECTORS / name).read_text()))


passed, failed = 0, 0


def check(what, call):
    global passed, failed
    try:
        call()
        passed += 1
    except Exception as e:  # noqa: BLE001: whatever goes wrong is a failed vector
        failed += 1
        print(f"FAILED {what}: {type(e).__name__} {e}")


def equal(a, b):
    assert a == b, f"{a!r} is not {b!r}"


def check_derive(v):
    equal(derive(v["key"], v["purpose"], len(v["out"])), v["out"])


def check_seal(v):
    equal(unseal(v["key"], v["ctx"], v["sealed"]), text(v["length"]))
    equal(len(v["sealed"]), v["length"] + 56 + 16 * (v["length"] // CELL + 1))
    for at in (0, 30, 56, -1):
        refused(unseal, v["key"], v["ctx"], flip(v["sealed"], at))
    refused(unseal, v["key"], v["ctx"] + b"\0", v["sealed"])
    refused(unseal, v["key"], v["ctx"], v["sealed"][:-1])


def check_entry(dk, v):
    space, folder, entry, rev, epoch, tag, sealed = whole(v["row"])
    ctx = cbor(["entry", space, folder, entry, rev, epoch])
    plain = unseal(derive(dk, b"entry"), ctx, sealed)
    (name, attributes, size, content), padding = uncbor(plain)
    equal(len(attributes), 3)
    encoded = len(plain) - len(padding)
    inline = len(content[1]) if content[0] == 0 else None
    wanted = encoded if inline is None else encoded - inline + padme(inline)
    equal(len(plain), -(-wanted // 128) * 128)
    equal(set(padding) - {0}, set())
    equal(name if isinstance(name, bytes) else name.encode(), v["name"])
    equal((size, attributes[1]), (v["size"], v["mtime_ns"]))
    equal(content[3] if content[0] == 1 else content[1], v["content"])
    equal(name_tag(dk, v["name"]), tag)
    if inline is not None:
        equal(size, inline)
    refused(unseal, derive(dk, b"entry"), cbor(["entry", space, folder, entry, rev + 1, epoch]), sealed)


def check_manifest(f, v):
    equal(H(v["sealed"]), v["hash"])
    size, mtime, objects, level, records, *parts = whole(unseal(f["mk"], cbor(["manifest", v["id"]]), v["sealed"]))
    equal((size, mtime, level, len(records)), (v["size"], 1_700_000_000_000_000_000, 0, v["chunks"]))
    equal(objects, [[f["object"], f["fk"]]])
    equal(parts, [v["runs"]] if "runs" in v else [])
    lengths = [length for count, length in (parts[0] if parts else [[1, size]]) for _ in range(count)]
    equal(sum(lengths), size)
    chunks = [min(length - at, 1 << 22) for length in lengths for at in range(0, length, 1 << 22)]
    equal(len(chunks), len(records))
    for i, (obj, number, length, digest, header) in enumerate(records):
        n = padme(chunks[i])
        equal((obj, number, length, len(digest), len(header)), (0, i, n + 56 + 16 * (n // CELL + 1), 32, 56))


def check_chunk(f, v):
    obj, number, length, digest, header = whole(v["record"])
    equal((obj, number, length, digest, header), (0, v["number"], len(v["sealed"]), H(v["sealed"]), v["sealed"][:56]))
    plain = unseal(f["fk"], cbor(["chunk", f["object"], number]), v["sealed"])
    equal(plain, text(v["length"]) + bytes(padme(v["length"]) - v["length"]))
    refused(unseal, f["fk"], cbor(["chunk", f["object"], number + 1]), v["sealed"])


def check_commit():
    v = load("commit.json")
    signed(v["public"], "commit", v["body"], v["signature"])
    refused(signed, v["public"], "grant", v["body"], v["signature"])
    space, epoch, commit, rows = whole(v["body"])
    equal(rows, [H(row) for row in v["rows"]])
    equal([whole(row)[0] for row in v["rows"]], [space] * len(rows))
    key = Ed25519PrivateKey.from_private_bytes(v["seed"])
    equal(key.public_key().public_bytes(*RAW), v["public"])
    equal(key.sign(b"shardkeep/v1/sig\0commit\0" + v["body"]), v["signature"])


def check_identity():
    v = load("identity.json")
    signed(v["public"], "identity", v["body"], v["signature"])
    equal(H(v["body"]), v["fingerprint"])
    account, name, public, kem = whole(v["body"])
    equal((account, name, public, len(kem)), (v["account"], "anna", v["public"], 1216))
    groups = []
    for fingerprint, account in sorted([(v["fingerprint"], v["account"]), (v["other_fingerprint"], v["other_account"])]):
        digits = blake3(b"shardkeep/v1/safety" + account + fingerprint).digest(length=48)
        groups += [f"{int.from_bytes(digits[i:i + 8], 'big') % 100000:05}" for i in range(0, 48, 8)]
    equal(" ".join(groups), v["safety_number"])


def check_account():
    v = load("account.json")
    account, fingerprint = v["account"], v["fingerprint"]
    rk = unseal(derive(v["export_key"], b"pw-wrap"), cbor(["pw-wrap", account, fingerprint, 1]), v["pw_wrap"])
    equal(len(rk), 32)
    w = entropy(v["words"])
    equal(unseal(derive(w, b"rec-wrap"), cbor(["rec-wrap", account, fingerprint, 1]), v["rec_wrap"]), rk)
    auth = Ed25519PrivateKey.from_private_bytes(derive(w, b"rec-auth")).public_key().public_bytes(*RAW)
    equal(auth, v["rec_auth"])
    signed(auth, "recover", v["proof"], v["proof_signature"])
    equal(whole(v["proof"]), [account, b"binding", H(v["new_login"]), 2])
    seed, kem = whole(unseal(derive(rk, b"account"), cbor(["account", account, fingerprint]), v["secrets"]))
    _, _, public, kem_public = whole(v["identity"])
    equal(H(v["identity"]), fingerprint)
    equal(Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(*RAW), public)
    equal(xwing_public(kem), kem_public)
    pins, spaces, links, time = whole(unseal(derive(rk, b"state"), cbor(["state", account, v["state_seq"]]), v["state"]))
    equal((pins, [s[0] for s in spaces], links, time), ([], [v["home"]], [], 0))


def entropy(words):
    """BIP39: 24 words of 11 bits are the entropy and the first 8 bits of its SHA-256."""
    listing = word_list()
    bits = 0
    for word in words.split():
        bits = bits << 11 | listing.index(word)
    w, checksum = (bits >> 8).to_bytes(32, "big"), bits & 255
    equal(hashlib.sha256(w).digest()[0], checksum)
    return w


def word_list():
    words = (VECTORS / "bip39_english.txt").read_text().split()
    equal((len(words), words == sorted(words)), (2048, True))
    # SHA-256 of the published list, https://github.com/bitcoin/bips/blob/master/bip-0039/english.txt
    equal(hashlib.sha256(("\n".join(words) + "\n").encode()).hexdigest(), "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda")
    return words


def check_space():
    v = load("space.json")
    space = v["space"]
    creator, nonce = whole(v["genesis"])
    equal((H(v["genesis"])[:16], len(nonce)), (space, 16))
    signed(v["public"], "member-set", v["members"], v["members_signature"])
    s, seq, epoch, prev, suite, members = whole(v["members"])
    equal((s, seq, epoch, prev, suite, len(members)), (space, 1, 1, bytes(32), 1, 1))
    account, fingerprint, role = members[0]
    equal((fingerprint, role), (creator, 2))
    signed(v["public"], "grant", v["grant"], v["grant_signature"])
    s, e, members_hash, sender, recipient, recipient_fp, enc, sealed = whole(v["grant"])
    equal((s, e, members_hash, sender, recipient, recipient_fp), (space, 1, H(v["members"]), creator, account, creator))
    aad = cbor([s, e, members_hash, sender, recipient, recipient_fp])
    sk = hpke_open(v["kem_seed"], enc, b"shardkeep/v1/grant", aad, sealed)
    equal(sk, v["space_key"])
    refused(hpke_open, v["kem_seed"], enc, b"shardkeep/v1/message", aad, sealed)
    equal(derive(sk, b"root-id", 16), v["root"])
    dk = derive(sk, b"root\0" + cbor(["root", space, v["root"], 1]))
    equal(name_tag(dk, b"a"), v["root_tag_of_a"])


def check_descriptor():
    v = load("descriptor.json")
    equal(H(v["bytes"]), v["id"])
    version, chunk, generation, policy, length, digest, shards = whole(v["bytes"])
    equal((version, chunk, generation, policy, length), (1, [v["object"], v["number"]], 0, [2, 2], 99))
    equal(shards, [H(s) for s in v["shards"]])
    first = H(v["object"] + v["number"].to_bytes(4, "big"))[:2]
    equal(int.from_bytes(first, "big"), v["partition"])


def check_capability():
    v = load("capability.json")
    signed(v["public"], "capability", v["body"], v["signature"])
    audience, account, operations, objects, limit, holder, start, end = whole(v["body"])
    equal((audience, operations, len(objects), limit, len(holder)), (4, [0, 1], 1, 1 << 40, 32))
    assert 0 < end - start <= 600_000


def main():
    for name, run in (("derive.json", check_derive), ("seal.json", check_seal)):
        for i, v in enumerate(load(name)["vectors"]):
            check(f"{name} {i}", lambda: run(v))
    f = load("name_tag.json")
    for i, v in enumerate(f["vectors"]):
        check(f"name_tag.json {i}", lambda: equal(name_tag(f["dk"], v["name"]), v["tag"]))
    f = load("entry.json")
    for i, v in enumerate(f["vectors"]):
        check(f"entry.json {i}", lambda: check_entry(f["dk"], v))
    for name, run in (("manifest.json", check_manifest), ("manifest_parts.json", check_manifest), ("chunk.json", check_chunk)):
        f = load(name)
        for i, v in enumerate(f["vectors"]):
            check(f"{name} {i}", lambda: run(f, v))
    for run in (check_commit, check_identity, check_account, check_space, check_descriptor, check_capability):
        check(run.__name__.removeprefix("check_") + ".json", run)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
