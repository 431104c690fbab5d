// Fuzz target: any bytes as an input file of `aionbd import`. The first byte picks the format; the
// rest is the file. Rows that come out are spelled as JSON, and what is spelled must be JSON.
// (HDF5 files are left out: there the library is under test, not this program.)
#include <simdjson.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "base/check.h"
#include "cli/row_encoder.h"
#include "cli/row_source.h"

namespace aionbd {
namespace {

/// One file that is a string. Thread safety: compatible.
class OneFile : public FileSystem {
 public:
  explicit OneFile(std::string_view bytes) : bytes_(bytes) {}

  Result<std::string> read_at(const std::string&, uint64_t offset, uint64_t size) override {
    return std::string(offset < bytes_.size() ? bytes_.substr(offset, size) : std::string_view());
  }
  Result<uint64_t> file_size(const std::string&) override { return bytes_.size(); }

  Status make_dirs(const std::string&) override { return unused(); }
  Result<std::vector<std::string>> list(const std::string&) override { return unused(); }
  Status sync_dir(const std::string&) override { return unused(); }
  Result<std::unique_ptr<WritableFile>> create(const std::string&) override { return unused(); }
  Result<std::unique_ptr<WritableFile>> open_for_append(const std::string&) override {
    return unused();
  }
  Result<uint64_t> free_bytes(const std::string&) override { return unused(); }
  Result<std::string> read(const std::string&, uint64_t) override { return unused(); }
  Result<std::unique_ptr<MappedFile>> map(const std::string&) override { return unused(); }
  Status rename(const std::string&, const std::string&) override { return unused(); }
  Status exchange(const std::string&, const std::string&) override { return unused(); }
  Status remove(const std::string&) override { return unused(); }
  Result<std::unique_ptr<FileLock>> lock(const std::string&) override { return unused(); }
  Result<bool> is_locked(const std::string&) override { return unused(); }

 private:
  static Status unused() { return internal_error("not part of this test"); }

  std::string_view bytes_;
};

void spell(const RowBatch& batch, RowEncoder& encoder) {
  std::string body = "[";
  for (size_t i = 0; i < batch.size(); ++i) {
    const size_t before = body.size();
    if (before > 1) body += ',';
    if (!encoder.append_point(batch, i, &body).ok()) body.resize(before);
  }
  body += ']';
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  CHECK_TRUE(parser.parse(body).get(root) == simdjson::SUCCESS);
  for (const auto point : root.get_array()) {
    CHECK_TRUE(point["id"].error() == simdjson::SUCCESS);
    CHECK_TRUE(point["values"].is_array());
  }
}

void read_all(RowSource& source, uint64_t skipped, size_t rows_max) {
  if (!source.skip(skipped).ok()) return;
  RowEncoder encoder({"id", 1, IdType::kU64});
  // Compressed input of a few bytes may unpack to more rows than there is time for.
  for (int batches = 0; batches < 64; ++batches) {
    RowBatch batch;
    if (!source.next(rows_max, size_t{1} << 20, &batch).ok() || batch.rows_taken == 0) return;
    CHECK_LE(batch.size(), rows_max);
    spell(batch, encoder);
  }
}

}  // namespace
}  // namespace aionbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aionbd;
  if (size == 0) return 0;
  OneFile files(std::string_view(reinterpret_cast<const char*>(data) + 1, size - 1));
  const unsigned choice = data[0] % 5;
  if (choice == 4) {
    auto stream = open_byte_stream(files, "f");
    if (!stream.has_value()) return 0;
    auto labels = LabelSource::open(std::move(*stream));
    std::vector<uint8_t> out;
    if (labels.has_value()) static_cast<void>((*labels)->next(3, &out).ok());
    return 0;
  }
  auto source = open_row_source(files, "f", static_cast<InputFormat>(choice), "");
  if (source.has_value()) read_all(**source, data[0] / 5 % 4, 1 + data[0] / 20);
  return 0;
}
