#include "cli/row_source.h"

#include <gtest/gtest.h>
#include <hdf5.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "cli/dense_reader.h"
#include "cli/test_files.h"

namespace aionbd {
namespace {

/// Everything a source yields, in batches of `rows_max`.
struct Content {
  Status status;
  uint32_t dimension = 0;
  std::vector<float> values;
  std::vector<std::string> lines;
  std::vector<uint64_t> rows;
};

Content read_all(RowSource& source, size_t rows_max, size_t bytes_max = size_t{1} << 20) {
  Content content;
  content.dimension = source.dimension();
  uint64_t expected = 0;
  bool first = true;
  while (true) {
    RowBatch batch;
    content.status = source.next(rows_max, bytes_max, &batch);
    if (!content.status.ok() || batch.rows_taken == 0) return content;
    if (first) expected = batch.first_row;
    first = false;
    EXPECT_EQ(batch.first_row, expected);
    expected += batch.rows_taken;
    EXPECT_LE(batch.size(), rows_max);
    content.values.insert(content.values.end(), batch.values.begin(), batch.values.end());
    for (size_t i = 0; i < batch.size(); ++i) content.rows.push_back(batch.row_of(i));
    for (const TextRow& row : batch.text_rows) {
      EXPECT_GE(batch.text.size(), row.begin + row.size + kTextPaddingBytes);
      content.lines.push_back(row.too_long ? "(too long)" : batch.text.substr(row.begin, row.size));
    }
  }
}

class RowSourceTest : public TestFiles {
 protected:
  Result<std::unique_ptr<RowSource>> open(const std::string& name, const std::string& bytes,
                                          InputFormat format) {
    write(name, bytes);
    return open_row_source(posix_file_system(), path(name), format, "train");
  }
  Content read(const std::string& name, const std::string& bytes, InputFormat format,
               size_t rows_max = 3) {
    auto source = open(name, bytes, format);
    if (!source.has_value()) return Content{source.error(), 0, {}, {}, {}};
    return read_all(**source, rows_max);
  }
};

std::string npy(const std::string& descr, const std::string& shape, const std::string& numbers,
                const std::string& order = "False", int version = 1) {
  std::string header =
      "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string out = "\x93NUMPY";
  out += static_cast<char>(version);
  out += '\0';
  out += static_cast<char>(header.size() & 0xFF);
  out += static_cast<char>(header.size() >> 8);
  if (version > 1) out += std::string(2, '\0');
  return out + header + numbers;
}

template <typename T>
std::string raw(std::initializer_list<T> values) {
  std::string out;
  for (const T value : values) out.append(reinterpret_cast<const char*>(&value), sizeof(T));
  return out;
}

std::string reversed_each(std::string bytes, size_t size) {
  for (size_t i = 0; i + size <= bytes.size(); i += size) {
    std::reverse(bytes.begin() + static_cast<ptrdiff_t>(i),
                 bytes.begin() + static_cast<ptrdiff_t>(i + size));
  }
  return bytes;
}

const std::vector<float> kSix = {0, 1, 2, 3, 4, 5};

TEST_F(RowSourceTest, NpyOfEveryElementType) {
  const auto check = [this](const std::string& descr, const std::string& numbers) {
    const Content got = read("a.npy", npy(descr, "(3, 2)", numbers), InputFormat::kNpy, 2);
    EXPECT_TRUE(got.status.ok()) << descr << got.status.to_string();
    EXPECT_EQ(got.dimension, 2U) << descr;
    EXPECT_EQ(got.values, kSix) << descr;
    EXPECT_EQ(got.rows, (std::vector<uint64_t>{0, 1, 2})) << descr;
  };
  check("<f4", raw<float>({0, 1, 2, 3, 4, 5}));
  check("<f8", raw<double>({0, 1, 2, 3, 4, 5}));
  check("|u1", raw<uint8_t>({0, 1, 2, 3, 4, 5}));
  check("|i1", raw<int8_t>({0, 1, 2, 3, 4, 5}));
  check("<u2", raw<uint16_t>({0, 1, 2, 3, 4, 5}));
  check("<i2", raw<int16_t>({0, 1, 2, 3, 4, 5}));
  check("<u4", raw<uint32_t>({0, 1, 2, 3, 4, 5}));
  check("<i4", raw<int32_t>({0, 1, 2, 3, 4, 5}));
  check("<u8", raw<uint64_t>({0, 1, 2, 3, 4, 5}));
  check("<i8", raw<int64_t>({0, 1, 2, 3, 4, 5}));
  check(">f4", reversed_each(raw<float>({0, 1, 2, 3, 4, 5}), 4));
  check("<f2", raw<uint16_t>({0, 0x3C00, 0x4000, 0x4200, 0x4400, 0x4500}));
}

TEST_F(RowSourceTest, NpyHalfPrecisionExtremes) {
  const Content got =
      read("h.npy",
           npy("<f2", "(1, 6)", raw<uint16_t>({0x0001, 0x8400, 0x7BFF, 0x7C00, 0xFC00, 0x8000})),
           InputFormat::kNpy);
  ASSERT_EQ(got.values.size(), 6U);
  EXPECT_EQ(got.values[0], 0x1p-24F);
  EXPECT_EQ(got.values[1], -0x1p-14F);
  EXPECT_EQ(got.values[2], 65504.0F);
  EXPECT_EQ(got.values[3], std::numeric_limits<float>::infinity());
  EXPECT_EQ(got.values[4], -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::signbit(got.values[5]) && got.values[5] == 0);
}

TEST_F(RowSourceTest, NpyVersionsAndShapes) {
  const std::string numbers = raw<float>({0, 1, 2, 3, 4, 5});
  for (const int version : {1, 2, 3}) {
    EXPECT_EQ(
        read("v.npy", npy("<f4", "(3, 2)", numbers, "False", version), InputFormat::kNpy).values,
        kSix);
  }
  EXPECT_EQ(read("t.npy", npy("<f4", "(1, 6)", numbers, "True"), InputFormat::kNpy).values, kSix);
  const Content empty = read("e.npy", npy("<f4", "(0, 6)", ""), InputFormat::kNpy);
  EXPECT_TRUE(empty.status.ok());
  EXPECT_TRUE(empty.values.empty());
}

TEST_F(RowSourceTest, NpyRefusesWhatItCannotTrust) {
  const std::string numbers = raw<float>({0, 1, 2, 3, 4, 5});
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"empty", ""},
      {"magic only", "\x93NUMPY"},
      {"version 9", npy("<f4", "(3, 2)", numbers, "False", 9)},
      {"object", npy("|O", "(3, 2)", numbers)},
      {"structured", npy("<f4x", "(3, 2)", numbers)},
      {"one axis", npy("<f4", "(6,)", numbers)},
      {"three axes", npy("<f4", "(3, 2, 1)", numbers)},
      {"fortran", npy("<f4", "(3, 2)", numbers, "True")},
      {"no such bool", npy("<f4", "(3, 2)", numbers, "1")},
      {"too short", npy("<f4", "(3, 2)", numbers.substr(1))},
      {"too long", npy("<f4", "(3, 2)", numbers + "x")},
      {"negative", npy("<f4", "(-3, 2)", numbers)},
      {"no columns", npy("<f4", "(3, 0)", "")},
      {"too many columns", npy("<f4", "(1, 65537)", "")},
      {"wraps to 0", npy("<f4", "(4611686018427387904, 4)", "")},
      {"beyond 2^64", npy("<f4", "(99999999999999999999, 2)", numbers)},
      {"rows of a lie", npy("<f4", "(1099511627776, 2)", numbers)},
      {"header cut", npy("<f4", "(3, 2)", numbers).substr(0, 40)},
      {"header of 4 GiB", std::string("\x93NUMPY\x02\x00\xFF\xFF\xFF\xFF", 12)},
      {"code", npy("<f4", "(3, 2, __import__('os'))", numbers)},
      {"key twice", npy("<f4', 'descr': '<f4", "(3, 2)", numbers)},
      {"unclosed", npy("<f4", "(3, 2", numbers)},
  };
  for (const auto& [name, bytes] : cases) {
    const Content got = read("bad.npy", bytes, InputFormat::kNpy);
    EXPECT_FALSE(got.status.ok()) << name;
    EXPECT_TRUE(got.values.empty()) << name;
  }
}

TEST_F(RowSourceTest, FvecsRowsAndSkip) {
  std::string bytes;
  for (int row = 0; row < 5; ++row) {
    bytes += raw<int32_t>({3}) + raw<float>({float(row), 0.5F, -1});
  }
  for (const size_t rows_max : {1, 2, 5, 9}) {
    const Content got = read("a.fvecs", bytes, InputFormat::kFvecs, rows_max);
    EXPECT_TRUE(got.status.ok());
    ASSERT_EQ(got.values.size(), 15U);
    EXPECT_EQ(got.values[12], 4.0F);
  }
  for (const uint64_t skipped : {0, 1, 4, 5}) {
    auto source = open("a.fvecs", bytes, InputFormat::kFvecs);
    ASSERT_TRUE(source.has_value());
    EXPECT_EQ((*source)->rows_count(), 5U);
    ASSERT_TRUE((*source)->skip(skipped).ok());
    const Content got = read_all(**source, 2);
    EXPECT_EQ(got.rows.size(), 5 - skipped);
    if (skipped < 5) {
      EXPECT_EQ(got.values[0], static_cast<float>(skipped));
      EXPECT_EQ(got.rows[0], skipped);
    }
  }
  auto source = open("a.fvecs", bytes, InputFormat::kFvecs);
  EXPECT_FALSE((*source)->skip(6).ok());
  source = open("a.fvecs", bytes, InputFormat::kFvecs);
  EXPECT_FALSE((*source)->skip(UINT64_MAX / 2).ok());
}

TEST_F(RowSourceTest, FvecsRefusesDamage) {
  const std::string row = raw<int32_t>({2}) + raw<float>({1, 2});
  for (const std::string& bytes :
       {std::string(), std::string("\x02"), row + row.substr(1), row + raw<int32_t>({2}),
        raw<int32_t>({0}), raw<int32_t>({-1}) + raw<float>({1}), raw<int32_t>({65537}),
        row + raw<int32_t>({3}) + raw<float>({1, 2})}) {
    EXPECT_FALSE(read("bad.fvecs", bytes, InputFormat::kFvecs).status.ok());
  }
  // Cut compressed input is only noticed on the way.
  EXPECT_FALSE(read("cut.fvecs.gz", gzipped(row + row.substr(1)), InputFormat::kFvecs).status.ok());
}

std::string idx(int type, const std::vector<uint32_t>& axes, const std::string& numbers) {
  std::string out = {0, 0, static_cast<char>(type), static_cast<char>(axes.size())};
  for (const uint32_t axis : axes) out += reversed_each(raw<uint32_t>({axis}), 4);
  return out + numbers;
}

TEST_F(RowSourceTest, IdxImagesPlainAndGzip) {
  const std::string images = idx(0x08, {3, 1, 2}, std::string("\0\1\2\3\4\5", 6));
  EXPECT_EQ(read("images-idx3-ubyte", images, InputFormat::kIdx).values, kSix);
  EXPECT_EQ(read("images-idx3-ubyte.gz", gzipped(images), InputFormat::kIdx).values, kSix);
  EXPECT_EQ(
      read("two.gz", gzipped(images.substr(0, 9)) + gzipped(images.substr(9)), InputFormat::kIdx)
          .values,
      kSix);
  EXPECT_EQ(read("f.idx", idx(0x0D, {3, 2}, reversed_each(raw<float>({0, 1, 2, 3, 4, 5}), 4)),
                 InputFormat::kIdx)
                .values,
            kSix);
}

TEST_F(RowSourceTest, IdxRefusesDamage) {
  const std::string images = idx(0x08, {3, 2}, "012345");
  for (const std::string& bytes :
       {std::string(), images.substr(0, 7), images.substr(0, images.size() - 1), images + "x",
        idx(0x0A, {3, 2}, "012345"), idx(0x08, {6}, "012345"), idx(0x08, {}, ""),
        idx(0x08, {3, 0}, ""), idx(0x08, {1, 0x10000, 0x10000, 0x10000, 0x10000}, ""),
        idx(0x08, {0xFFFFFFFF, 0xFFFF}, "012345"), "x" + images}) {
    EXPECT_FALSE(read("bad.idx", bytes, InputFormat::kIdx).status.ok());
  }
  EXPECT_FALSE(
      read("cut.gz", gzipped(images.substr(0, images.size() - 1)), InputFormat::kIdx).status.ok());
  EXPECT_FALSE(read("long.gz", gzipped(images + "x"), InputFormat::kIdx).status.ok());
  const std::string packed = gzipped(images);
  EXPECT_FALSE(read("torn.gz", packed.substr(0, packed.size() - 5), InputFormat::kIdx).status.ok());
}

TEST_F(RowSourceTest, LabelsReadAlong) {
  write("labels", idx(0x08, {4}, "\5\6\7\3"));
  auto stream = open_byte_stream(posix_file_system(), path("labels"));
  auto labels = LabelSource::open(std::move(*stream));
  ASSERT_TRUE(labels.has_value());
  EXPECT_EQ((*labels)->count(), 4U);
  ASSERT_TRUE((*labels)->skip(1).ok());
  std::vector<uint8_t> got;
  ASSERT_TRUE((*labels)->next(2, &got).ok());
  EXPECT_EQ(got, (std::vector<uint8_t>{6, 7}));
  EXPECT_FALSE((*labels)->next(2, &got).ok());

  write("labels", idx(0x08, {4}, "\5\6\7"));
  stream = open_byte_stream(posix_file_system(), path("labels"));
  EXPECT_FALSE(LabelSource::open(std::move(*stream)).has_value());
}

TEST_F(RowSourceTest, NdjsonLines) {
  const std::string text = "{\"a\":1}\n\n  \r\n{\"b\":2}\r\n{\"c\":3}";
  for (const size_t rows_max : {1, 2, 3, 10}) {
    const Content got = read("a.ndjson", text, InputFormat::kNdjson, rows_max);
    EXPECT_TRUE(got.status.ok());
    EXPECT_EQ(got.lines, (std::vector<std::string>{"{\"a\":1}", "{\"b\":2}\r", "{\"c\":3}"}));
    EXPECT_EQ(got.rows, (std::vector<uint64_t>{0, 3, 4}));
  }
  const Content packed = read("a.ndjson.zst", zstd_packed(text), InputFormat::kNdjson, 2);
  EXPECT_EQ(packed.lines.size(), 3U);
  const Content frames = read("b.zst", zstd_packed(text.substr(0, 3)) + zstd_packed(text.substr(3)),
                              InputFormat::kNdjson, 2);
  EXPECT_EQ(frames.lines.size(), 3U);
  EXPECT_TRUE(frames.status.ok());
}

TEST_F(RowSourceTest, NdjsonSkipsAcrossChunks) {
  std::string text;
  for (int i = 0; i < 40000; ++i)
    text += "{\"id\":" + std::to_string(i) + ",\"pad\":\"xxxxxxxx\"}\n";
  write("big.ndjson", text);
  for (const uint64_t skipped : {0, 1, 9999, 39999, 40000}) {
    auto source =
        open_row_source(posix_file_system(), path("big.ndjson"), InputFormat::kNdjson, "");
    ASSERT_TRUE(source.has_value());
    ASSERT_TRUE((*source)->skip(skipped).ok());
    const Content got = read_all(**source, 1000, 20000);
    ASSERT_EQ(got.lines.size(), 40000 - skipped);
    if (!got.lines.empty()) {
      EXPECT_TRUE(got.lines[0].starts_with("{\"id\":" + std::to_string(skipped) + ","));
    }
  }
}

TEST_F(RowSourceTest, NdjsonLineOverTheLimitIsPassedOver) {
  const std::string text = "{\"a\":1}\n" + std::string(kLineBytesMax + 1, 'x') + "\n{\"b\":2}\n";
  const Content got = read("long.ndjson", text, InputFormat::kNdjson, 10);
  EXPECT_TRUE(got.status.ok());
  EXPECT_EQ(got.lines, (std::vector<std::string>{"{\"a\":1}", "(too long)", "{\"b\":2}"}));
}

TEST_F(RowSourceTest, CompressedDamageIsNoticed) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "{\"id\":" + std::to_string(i * 7919 % 5000) + "}\n";
  const std::string packed = zstd_packed(text);
  EXPECT_FALSE(
      read("cut.zst", packed.substr(0, packed.size() / 2), InputFormat::kNdjson, 1000).status.ok());
  std::string flipped = packed;
  flipped[flipped.size() / 2] = static_cast<char>(flipped[flipped.size() / 2] ^ 0x10);
  EXPECT_FALSE(read("flip.zst", flipped, InputFormat::kNdjson, 1000).status.ok());
}

class Hdf5Test : public RowSourceTest {
 protected:
  /// A file with one data set; returns its path.
  std::string make(const std::string& name, const std::string& set, hid_t type, hsize_t rows,
                   hsize_t columns, const void* numbers, hsize_t chunk = 0) {
    const hid_t file = H5Fcreate(path(name).c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    const hsize_t dims[2] = {rows, columns};
    const hid_t space = H5Screate_simple(2, dims, nullptr);
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    if (chunk > 0) {
      const hsize_t chunks[2] = {chunk, columns};
      H5Pset_chunk(list, 2, chunks);
      H5Pset_deflate(list, 3);
    }
    const hid_t data = H5Dcreate2(file, set.c_str(), type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers);
    H5Dclose(data);
    H5Pclose(list);
    H5Sclose(space);
    H5Lcreate_external("other.hdf5", "/train", file, "outside", H5P_DEFAULT, H5P_DEFAULT);
    const hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, 8);
    const hid_t scalar = H5Screate(H5S_SCALAR);
    const hid_t attribute = H5Acreate2(file, "distance", text, scalar, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, text, "angular");
    H5Aclose(attribute);
    H5Sclose(scalar);
    H5Tclose(text);
    H5Fclose(file);
    return path(name);
  }
};

TEST_F(Hdf5Test, RowsInBatchesAndAfterSkip) {
  const float numbers[6] = {0, 1, 2, 3, 4, 5};
  for (const hsize_t chunk : {0, 2}) {
    auto source =
        open_hdf5(make("a.hdf5", "train", H5T_NATIVE_FLOAT, 3, 2, numbers, chunk), "train");
    ASSERT_TRUE(source.has_value()) << source.error().to_string();
    EXPECT_EQ((*source)->metric(), Metric::kCosine);
    EXPECT_EQ(read_all(**source, 2).values, kSix);
    source = open_hdf5(path("a.hdf5"), "train");
    ASSERT_TRUE((*source)->skip(2).ok());
    EXPECT_EQ(read_all(**source, 2).values, (std::vector<float>{4, 5}));
    EXPECT_FALSE((*source)->skip(1).ok());
  }
  const double doubles[6] = {0, 1, 2, 3, 4, 5};
  auto source = open_hdf5(make("d.hdf5", "train", H5T_NATIVE_DOUBLE, 3, 2, doubles), "train");
  ASSERT_TRUE(source.has_value());
  EXPECT_EQ(read_all(**source, 8).values, kSix);
}

TEST_F(Hdf5Test, RefusesWhatLeadsOutOrDoesNotFit) {
  const float numbers[6] = {0, 1, 2, 3, 4, 5};
  const std::string file = make("a.hdf5", "train", H5T_NATIVE_FLOAT, 3, 2, numbers);
  EXPECT_FALSE(open_hdf5(file, "test").has_value());
  EXPECT_FALSE(open_hdf5(file, "outside").has_value());
  EXPECT_FALSE(open_hdf5(file, "/train").has_value());
  EXPECT_FALSE(open_hdf5(file, "").has_value());
  EXPECT_FALSE(open_hdf5(path("missing.hdf5"), "train").has_value());
  std::string bytes = read_bytes("a.hdf5");
  for (const size_t size : {size_t{0}, size_t{20}, bytes.size() / 2, bytes.size() - 200}) {
    write("cut.hdf5", bytes.substr(0, size));
    auto source = open_hdf5(path("cut.hdf5"), "train");
    if (source.has_value()) {
      EXPECT_FALSE(read_all(**source, 8).status.ok()) << size;
    }
  }
}

TEST_F(RowSourceTest, FormatByNameThenByContent) {
  FileSystem& files = posix_file_system();
  write("a", "\x93NUMPY..");
  write("b", "\x89HDF\r\n\x1a\n");
  write("c", "  {\"id\":1}");
  write("d", idx(0x08, {1, 1}, "x"));
  write("e", "hello");
  EXPECT_EQ(*detect_format(files, path("a")), InputFormat::kNpy);
  EXPECT_EQ(*detect_format(files, path("b")), InputFormat::kHdf5);
  EXPECT_EQ(*detect_format(files, path("c")), InputFormat::kNdjson);
  EXPECT_EQ(*detect_format(files, path("d")), InputFormat::kIdx);
  EXPECT_EQ(detect_format(files, path("e")).error().code(), Code::kInvalidArgument);
  EXPECT_FALSE(detect_format(files, path("missing")).has_value());
  EXPECT_EQ(*detect_format(files, "x/train-images-idx3-ubyte.gz"), InputFormat::kIdx);
  EXPECT_EQ(*detect_format(files, "x/docs.ndjson.zst"), InputFormat::kNdjson);
  EXPECT_EQ(*detect_format(files, "sift.fvecs"), InputFormat::kFvecs);
}

TEST_F(RowSourceTest, HalvesOfADenseFileMakeTheWhole) {
  std::string numbers;
  for (int i = 0; i < 300; ++i) numbers += raw<float>({static_cast<float>(i)});
  const std::string bytes = npy("<f4", "(100, 3)", numbers);
  for (const uint64_t cut : {0, 1, 50, 99, 100}) {
    auto source = open("h.npy", bytes, InputFormat::kNpy);
    ASSERT_TRUE((*source)->skip(cut).ok());
    const Content rest = read_all(**source, 7, 40);
    ASSERT_EQ(rest.rows.size(), 100 - cut);
    if (cut < 100) {
      EXPECT_EQ(rest.values[0], static_cast<float>(cut * 3));
    }
  }
}

}  // namespace
}  // namespace aionbd
