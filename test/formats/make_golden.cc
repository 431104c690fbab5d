// Makes the frozen stores of one format version: `make_golden DIR` fills DIR/store (a plain store),
// DIR/backup (a backup of one with indexes) and DIR/future (a store whose manifest says it was
// written by a later version). Run once per format version (`make_golden test/golden/v1`); what it
// made is committed and never made again: it stands for the stores that users have.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "aionbd/store.h"
#include "base/check.h"
#include "base/checksum.h"
#include "storage/format.h"
#include "test/formats/golden_content.h"

namespace aionbd {
namespace {

void must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "make_golden: %s\n", status.to_string().c_str());
  std::exit(1);
}

void replay(const std::string& dir, const std::vector<Operation>& history,
            const std::function<void(Database&)>& then) {
  auto database = Database::open(golden_options(dir));
  must(database.status());
  ModelState state;
  for (const Operation& operation : history) {
    must(operation.apply(**database, state));
    state = operation.apply(state);
  }
  then(**database);
}

void build_indexes(Database& database) {
  const auto collection = database.collection("indexed").value();
  Filter filter;
  filter.must.push_back({"group", EqualTo{int64_t{1}}, nullptr});
  must(collection->count(&filter).status());
  must(collection->optimize());
}

/// Raises the version in a manifest, under a right checksum.
void make_future(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  in.close();
  const auto number_at = [&](size_t offset) {
    return read_as<uint64_t>(as_bytes_of(bytes).subspan(offset));
  };
  bytes[8] = static_cast<char>(kFormatVersion + 1);
  const uint64_t seed = checksum_seed(number_at(16), number_at(24), kSeedManifest);
  const uint64_t sum = checksum(as_bytes_of(bytes).first(bytes.size() - 8), seed);
  for (size_t i = 0; i < 8; ++i) {
    bytes[bytes.size() - 8 + i] = static_cast<char>(sum >> (8 * i));
  }
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

void make(const std::string& out) {
  namespace fs = std::filesystem;
  fs::create_directories(out);
  replay(out + "/store", golden_history(), [](Database&) {});
  replay(out + "/indexed", golden_indexed_history(), build_indexes);
  must(backup_store(out + "/indexed", out + "/backup", {.level = 19, .keep = 0}).status());
  fs::remove_all(out + "/indexed");
  fs::copy(out + "/store", out + "/future");
  make_future(out + "/future/MANIFEST");
  // Locks are made when missing; an empty file is nothing to keep.
  for (const char* dir : {"/store", "/backup", "/future"}) fs::remove(out + dir + "/LOCK");
}

}  // namespace
}  // namespace aionbd

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_golden DIR\n");
    return 64;
  }
  aionbd::make(argv[1]);
  return 0;
}
