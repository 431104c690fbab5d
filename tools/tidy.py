#!/usr/bin/env python3
"""Style as a test: the rules of STYLE.md and ARCHITECTURE.md that a program can check.

Prints `file:line: message` for each breach and exits 1 if there is one. Standard library only.
Each rule is a function from a tree (path -> text) to breaches; tidy_test.py shows for every rule
that it can fail.
"""
import fnmatch
import os
import pathlib
import re
import subprocess
import sys

COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70

# Functions allowed to be longer than FUNCTION_LINES_MAX, with the reason. The rule is a ratchet:
# a new name enters this table only with a reason a reader accepts.
LONG_FUNCTIONS = {}

# ---- Who may include whom (ARCHITECTURE.md, "Layers") --------------------------------------------

# Headers of the public API that are vocabulary: open to every folder.
VALUE_HEADERS = {"status.h", "types.h", "filter.h", "options.h", "metrics.h"}

# The headers of a folder that other folders may include; None: every header.
FRONT_DOORS = {
    "aionbd": None,
    "base": None,
    "io": {"file_system.h", "process_memory.h"},
    "distance": {"metric.h", "kernels.h", "row_values.h"},
    "quant": {"projection.h", "bit_codec.h", "plane_codec.h", "byte_codec.h", "kmeans.h"},
    "payload": {"payload.h", "filter.h", "field_index.h", "row_set.h"},
    "index": {"vector_index.h", "top_k.h"},
    "storage": {"storage.h", "segment_file.h", "store_files.h", "backup.h"},
    "engine": {"engine.h"},
    "server": {"server.h", "settings.h", "routes.h", "exporter.h"},
    "cli": set(),
}

MAY_INCLUDE = {
    "aionbd": {"aionbd"},
    "base": set(),
    "io": {"base"},
    "distance": {"base"},
    "quant": {"distance", "base"},
    "payload": {"base"},
    "index": {"quant", "distance", "base"},
    "storage": {"io", "base"},
    "engine": {"storage", "index", "payload", "quant", "distance", "io", "base", "aionbd"},
    "server": {"aionbd", "base"},
    "cli": {"server", "aionbd", "io", "base"},
}
# test/ and bench/ cross folders on purpose, and may look behind front doors.
MAY_INCLUDE["test"] = MAY_INCLUDE["bench"] = set(FRONT_DOORS)

# Headers that exist for tests alone: unit tests and test/ may include them from any folder.
TEST_DOORS = {"io/sim_file_system.h"}

# Third-party and system headers: which product files may know them. Tests may know all of them.
THIRD_PARTY = [
    (r"hwy/.*", ["src/distance/*", "src/quant/*", "src/index/*"]),
    (r"xxhash\.h", ["src/base/checksum*"]),
    (r"roaring/.*", ["src/payload/row_set*", "src/payload/posting*"]),
    (r"boost/.*", ["src/server/http*", "src/cli/client*"]),
    (r"openssl/.*", ["src/server/tls*", "src/server/auth*"]),
    (r"simdjson\.h", ["src/server/json*", "src/server/wire*", "src/cli/*"]),
    (r"fmt/.*", ["src/server/*", "src/cli/*"]),
    (r"CLI/.*", ["src/cli/arguments.cc"]),
    (r"spdlog/.*", ["src/cli/*"]),
    (r"(hdf5|zlib)\.h", ["src/cli/*", "bench/*"]),
    (r"zstd\.h", ["src/cli/*", "src/storage/backup*", "bench/*"]),
    # Files are opened, written, mapped and synced in src/io alone; the cli asks about its own
    # process (umask, limits, terminal).
    (r"(fcntl|dirent|sys/(mman|file|statvfs))\.h", ["src/io/*", "src/cli/server_process*"]),
    (r"sys/(stat|uio)\.h", ["src/io/*", "src/server/http*", "src/cli/cmd_serve.cc"]),
    (r"(sys/socket|netinet/.*|arpa/inet|netdb|poll)\.h",
     ["src/server/http*", "src/cli/client*", "src/cli/server_process*"]),
    (r"sys/(epoll|eventfd)\.h", ["src/server/event_loop*"]),
    (r"sys/prctl\.h", ["src/cli/server_process*"]),
    (r"(linux/futex|sys/syscall)\.h", ["src/base/sleep_word.h"]),
    (r"(unistd|sched|semaphore|termios|malloc|sys/(resource|wait|types|ioctl))\.h",
     ["src/io/*", "src/cli/*", "src/base/*", "src/server/event_loop*"]),
]
C_HEADERS = {"errno.h", "limits.h", "signal.h", "stddef.h", "stdint.h"}

# ---- Banned names, each with its replacement -----------------------------------------------------

# (expression, message, files where it is fine). Product files only: tests, fuzzers and the
# simulated disk may do what they need.
BANNED = [
    (r"\bf(data)?sync\s*\(", "durability is FileSystem's: WritableFile::sync", ["src/io/*"]),
    (r"\b(f|s|sn|vs|vf|vsn)?printf\s*\(", "the library never prints: Logger, or fmt in the cli",
     ["src/cli/*", "src/base/check.cc"]),
    (r"\bstd::(i|o)?fstream\b", "files are read through FileSystem", []),
    (r"\bfopen\s*\(", "files are read through FileSystem", []),
    (r"\bthrow\b", "errors are Status and Result", []),
    # With a private constructor, std::unique_ptr<T>(new T) is the way; so is placement.
    (r"^(?!.*_ptr<.*\(new ).*\bnew\b(?!\s*\()", "std::make_unique or a container", []),
    (r"\bdelete\b\s*(\[\]\s*)?[A-Za-z_*(]", "std::unique_ptr", []),
    (r"\bstd::(recursive_|shared_|timed_)?mutex\b", "Mutex of base/mutex.h", ["src/base/mutex.h"]),
    (r"\bstd::(lock_guard|unique_lock|scoped_lock)\b", "MutexLock of base/mutex.h",
     ["src/base/mutex.h"]),
    (r"\bstd::condition_variable(_any)?\b", "CondVar of base/mutex.h", ["src/base/mutex.h"]),
    (r"\bs?rand\s*\(|\bstd::(mt19937\w*|random_device)\b", "Rng of base/rng.h", ["src/base/rng.*"]),
    (r"\bsystem_clock\b", "Clock of base/clock.h", ["src/base/clock.*"]),
    (r"\bstd::c(out|err|log)\b", "Logger; only the cli talks to a terminal", ["src/cli/*"]),
    (r"\bstd::endl\b", "'\\n'", []),
    (r"\bassert\s*\(", "CHECK or DCHECK of base/check.h", []),
    (r"\bstd::(sto[a-z]+|regex)\b|\bato[ifl]+\s*\(", "std::from_chars, with its error checked", []),
    (r"\bstd::atomic<std::shared_ptr", "Published<T> of base/published.h", []),
    (r"\b(strcpy|strcat|gets|alloca|strtok)\s*\(", "spans and strings that know their size", []),
]
# Split so that this file does not break its own rule.
MARKERS = "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"])
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "impl", "misc"}

CODE = (".h", ".cc", ".py", ".sh", "CMakeLists.txt", "dev", ".ci/run")


# ---- Reading -------------------------------------------------------------------------------------

COMMENT_OR_LITERAL = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<tag>[^()\s]{0,16})\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.S)


def without_comments_and_strings(text):
    """Same length and lines; comments and literals blanked."""
    return COMMENT_OR_LITERAL.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def without_literals(text):
    """Same lines, shorter by what literals hold."""
    return COMMENT_OR_LITERAL.sub(
        lambda m: m.group() if m.group()[0] == "/" else re.sub(r"[^\n]", "", m.group()), text)


def is_cpp(path):
    return path.endswith((".h", ".cc"))


def is_test(path):
    """A test, a fuzzer, or the simulated disk."""
    name = os.path.basename(path)
    return bool(re.search(r"_(test|fuzz)\.(cc|h)$", name)) or name.startswith("sim_") or (
        not path.startswith(("src/", "include/")))


def product_files(tree):
    """What is linked into the program: sources, and headers that not only tests include."""
    includers = {}
    for path, text in tree.items():
        if is_cpp(path):
            for _, quoted, name in includes(text):
                if quoted:
                    includers.setdefault(name, []).append(path)
    support = {path for path in tree if path.endswith(".h") and
               all(map(is_test, includers.get(path.partition("/")[2], [""])))}
    return {path: text for path, text in tree.items()
            if is_cpp(path) and not is_test(path) and path not in support}


def folder_of(path):
    """The row of the include table that `path` belongs to."""
    parts = path.split("/")
    return {"include": "aionbd"}.get(parts[0], parts[1] if parts[0] == "src" else parts[0])


def lines_of(text):
    return enumerate(text.split("\n"), 1)


def matches(path, patterns):
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def includes(text):
    for number, line in lines_of(text):
        match = re.match(r'\s*#\s*include\s*([<"])([^">]+)[">]', line)
        if match:
            yield number, match.group(1) == '"', match.group(2)


# ---- Rules ---------------------------------------------------------------------------------------

def include_table(tree):
    product = product_files(tree)
    for path, text in tree.items():
        if not is_cpp(path):
            continue
        own = folder_of(path)
        for number, quoted, name in includes(text):
            if not quoted:
                continue
            if "/" not in name:
                yield path, number, f'"{name}": spell project headers from src/: "folder/{name}"'
                continue
            folder, header = name.split("/", 1)
            if folder == own or (folder == "aionbd" and header in VALUE_HEADERS):
                continue
            if name in TEST_DOORS and path not in product:
                continue
            if folder not in MAY_INCLUDE.get(own, set()):
                yield path, number, f"{own}/ may not include {folder}/ (see ARCHITECTURE.md)"
            elif FRONT_DOORS[folder] is not None and header not in FRONT_DOORS[folder] and (
                    own not in ("test", "bench")):
                doors = ", ".join(sorted(FRONT_DOORS[folder]))
                yield path, number, f"{name} is private to {folder}/; its front doors: {doors}"


def third_party(tree):
    for path, text in product_files(tree).items():
        for number, quoted, name in includes(text):
            if quoted or name in C_HEADERS or re.fullmatch(r"[a-z_0-9]+", name):
                continue
            rows = [allowed for pattern, allowed in THIRD_PARTY if re.fullmatch(pattern, name)]
            if not rows:
                yield path, number, f"<{name}> is in no row of THIRD_PARTY in tools/tidy.py"
            elif not matches(path, rows[0]):
                yield path, number, f"<{name}> belongs in {' '.join(rows[0])} only"


def banned_names(tree):
    any_of_them = re.compile("|".join(f"(?:{pattern})" for pattern, _, _ in BANNED))
    for path, text in product_files(tree).items():
        for number, line in lines_of(without_comments_and_strings(text)):
            if line.lstrip().startswith("#") or not any_of_them.search(line):
                continue
            for pattern, replacement, fine_in in BANNED:
                found = re.search(pattern, line)
                if found and not matches(path, fine_in):
                    yield path, number, f"'{found.group().strip()}' is banned; use {replacement}"


def line_width(tree):
    for path, text in tree.items():
        if not path.endswith(CODE):
            continue
        if path.endswith("_test.cc"):  # a body or a file as it is may be wide there
            text = without_literals(text)
        for number, line in lines_of(text):
            if len(line) > COLUMNS_MAX:
                yield path, number, f"{len(line)} columns; at most {COLUMNS_MAX}"


def whitespace(tree):
    for path, text in tree.items():
        for number, line in lines_of(text):
            if line.endswith((" ", "\t", "\r")):
                yield path, number, "blank at the end of the line"
        if text and not text.endswith("\n"):
            yield path, text.count("\n") + 1, "no newline at the end of the file"


def dead_files(tree):
    included = {name for path, text in tree.items() if is_cpp(path)
                for _, quoted, name in includes(text) if quoted}
    cmake = "\n".join(text for path, text in tree.items() if path.endswith("CMakeLists.txt"))
    for path in tree:
        parts = path.split("/")
        if path.endswith(".h") and parts[0] in ("src", "include"):
            if "/".join(parts[1:]) not in included and parts[-1] != "aionbd.h":
                yield path, 1, "no file includes this header"
        elif path.endswith(".cc"):
            if parts[0] == "src":
                alive = len(parts) == 3 and re.search(rf"aionbd_folder\({parts[1]}\b", cmake)
            else:
                alive = any(re.search(rf"\b{re.escape(word)}\b", cmake) for word in parts[1:])
            if not alive:
                yield path, 1, "in no target of any CMakeLists.txt"


def fuzz_corpora(tree):
    fuzzers = {os.path.basename(path)[:-3]: path for path in tree if path.endswith("_fuzz.cc")}
    corpora = {path.split("/")[2]: path for path in tree if path.startswith("test/fuzz_corpus/")}
    for name in fuzzers.keys() - corpora.keys():
        yield fuzzers[name], 1, f"test/fuzz_corpus/{name}/ has no seed"
    for name in corpora.keys() - fuzzers.keys():
        yield corpora[name], 1, f"no fuzzer is called {name}"


def leftover_markers(tree):
    for path, text in tree.items():
        for number, line in lines_of(text):
            found = re.search(rf"\b({MARKERS})\b", line)
            if found:
                yield path, number, f"{found.group()}: do it, or write it into an issue"


def machine_paths(tree):
    for path, text in tree.items():
        for number, line in lines_of(text):
            found = re.search(r"(?<![\w.$}/-])/(work|tmp|root|home)" + "/", line)
            if found:
                yield path, number, f"absolute path of one machine: {found.group()}"


def one_title(tree):
    for path, text in tree.items():
        if not path.endswith(".md"):
            continue
        fenced, titles = False, []
        for number, line in lines_of(text):
            fenced ^= line.startswith("```")
            if line.startswith("# ") and not fenced:
                titles.append(number)
        if titles[:1] != [1]:
            yield path, 1, "a document begins with its `# ` title"
        for number in titles[1:]:
            yield path, number, "second `# ` title; one per document"


def dead_links(tree):
    folders = {parent for path in tree for parent in map(str, pathlib.PurePath(path).parents)}
    for path, text in tree.items():
        if not path.endswith(".md"):
            continue
        for number, line in lines_of(text):
            for target in re.findall(r"\]\(([^)#\s]+)", line):
                if "://" in target or target.startswith("mailto:"):
                    continue
                resolved = os.path.normpath(os.path.join(os.path.dirname(path), target))
                if resolved not in tree and resolved not in folders:
                    yield path, number, f"link to {target}, which is not there"


def dead_mentions(tree):
    """Documents named in comments and prose exist, by their path or by its end."""
    documents = {path for path in tree if path.endswith(".md")}
    for path, text in tree.items():
        if not path.endswith((".md", ".h", ".cc")):
            continue
        for number, line in lines_of(text):
            for name in re.findall(r"(?<![\w./*<-])[\w./-]*\w\.md\b", line):
                name = re.sub(r"^(\.\.?/)+", "", name)
                if not any(("/" + document).endswith("/" + name) for document in documents):
                    yield path, number, f"mentions {name}, which is not there"


def case_index(tree):
    """api/cases/README.md lists exactly the case files."""
    index = "api/cases/README.md"
    files = {os.path.basename(path): path for path in tree
             if path.startswith("api/cases/") and path.endswith(".json")}
    listed = {name: number for number, line in lines_of(tree.get(index, ""))
              for name in re.findall(r"`([a-z_0-9]+\.json)`", line)}
    for name in sorted(files.keys() - listed.keys()):
        yield files[name], 1, f"not listed in {index}"
    for name in sorted(listed.keys() - files.keys()):
        yield index, listed[name], f"{name} is not there"


def unused_constants(tree):
    """What clang warns of, but not in files that are compiled several at a time."""
    declaration = re.compile(
        r"^(?:static |inline |constexpr |const )+[^=;(){}]*?(\w+)(?:\[\w*\])*(?: =|\{|;)", re.M)
    headers = "\n".join(text for path, text in tree.items() if path.endswith(".h"))
    for path, text in tree.items():
        if path.endswith(".cc"):
            code = without_comments_and_strings(text)
            for found in declaration.finditer(code):
                uses = re.findall(rf"\b{found.group(1)}\b", code)
                if len(uses) == 1 and f"{found.group(1)};" not in headers:  # not an extern one
                    line = code.count("\n", 0, found.start()) + 1
                    yield path, line, f"nothing uses {found.group(1)}"


def vague_names(tree):
    for path in tree:
        stem = os.path.basename(path).split(".")[0]
        if is_cpp(path) and VAGUE_NAMES & set(stem.split("_") + path.split("/")[:-1]):
            yield path, 1, "name a file after what its functions share, not utils or helpers"


def guarded_headers(tree):
    for path, text in tree.items():
        if path.endswith(".h") and "#pragma once\n" not in text:
            yield path, 1, "no #pragma once"
        # A source beside its header, or a test beside its source, may leave it to that one.
        stem = re.sub(r"(_test|_fuzz)?\.(cc|h)$", "", path)
        beside = {stem + ".h", stem + ".cc"} - {path}
        if is_cpp(path) and not text.startswith("//") and (
                path.endswith(".h") or not beside & tree.keys()):
            yield path, 1, "a file opens with what it is"


def functions(text):
    """(name, first line, last line) of every function body; lambdas belong to their function."""
    text = re.sub(r"(?m)^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", lambda m: re.sub(r"[^\n]", " ", m.group()),
                  without_comments_and_strings(text))
    stack, head_start = [], 0
    tail = re.compile(r"\)\s*((const|noexcept|override|final|mutable|&&?|[A-Z_]+(\([^()]*\))?)\s*"
                      r"|->[^;{}]*)*$")
    for position, char in enumerate(text):
        if char == ";":
            head_start = position + 1
        elif char == "{":
            head = text[head_start:position]
            inside = stack and stack[-1][0] in ("function", "value")
            glued = position > 0 and not text[position - 1].isspace()
            words = " ".join(head.split())  # comments have left long runs of spaces
            if inside or glued or re.search(r"(=|,|\(|\{|\breturn)$", words):
                stack.append(("value", None, head_start))
                continue
            name = re.search(r"([\w:~]+|operator\S+)\s*\(", words)
            if name and tail.search(words):
                first = head_start + len(head) - len(head.lstrip())
                stack.append(("function", name.group(1), text.count("\n", 0, first) + 1))
            else:
                stack.append(("scope", None, 0))
            head_start = position + 1
        elif char == "}" and stack:
            kind, name, first = stack.pop()
            if kind == "function":
                yield name, first, text.count("\n", 0, position) + 1
            if kind != "value" or (stack and stack[-1][0] in ("function", "value")):
                head_start = position + 1


def function_length(tree):
    seen = set()
    for path, text in product_files(tree).items():
        for name, first, last in functions(text):
            length = last - first + 1
            if length <= FUNCTION_LINES_MAX:
                continue
            seen.add((path, name))
            if (path, name) not in LONG_FUNCTIONS:
                yield path, first, f"{name} has {length} lines; split it at {FUNCTION_LINES_MAX}"
    for path, name in LONG_FUNCTIONS.keys() - seen:
        yield "tools/tidy.py", 1, f"LONG_FUNCTIONS: {path} {name} is not long any more; remove it"


RULES = [include_table, third_party, banned_names, line_width, whitespace, dead_files,
         fuzz_corpora, leftover_markers, machine_paths, one_title, dead_links, dead_mentions,
         case_index, unused_constants, vague_names, guarded_headers, function_length]


def read_tree(root):
    """The files that are, or would be, committed; those that are not text are left out."""
    try:
        listing = subprocess.run(
            ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True, capture_output=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):  # an exported tree without its history
        listing = [os.path.relpath(os.path.join(folder, name), root)
                   for folder, _, names in os.walk(root) for name in names]
        listing = [path for path in listing if not path.startswith(("build/", ".git/"))]
    tree = {}
    for path in sorted(filter(None, listing)):
        try:
            tree[path] = pathlib.Path(root, path).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            if path.startswith("test/fuzz_corpus/"):
                tree[path] = ""  # binary seeds count as present
    return tree


# Fuzz seeds and golden data are what they are; LICENSE is not ours to lay out.
VERBATIM = ("test/fuzz_corpus/", "test/golden/", "LICENSE")


def breaches(tree):
    own = {path: "" if path.startswith(VERBATIM) else text for path, text in tree.items()}
    for rule in RULES:
        yield from rule(own)


def main():
    found = sorted(set(breaches(read_tree(pathlib.Path(__file__).resolve().parent.parent))))
    for path, line, message in found:
        print(f"{path}:{line}: {message}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
