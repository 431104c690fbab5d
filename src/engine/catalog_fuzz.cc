// Fuzz target: any bytes as a catalog. What is accepted must encode to the same bytes again, and
// name no file and no index twice.
#include <cstdint>
#include <set>
#include <string>
#include <tuple>

#include "base/check.h"
#include "engine/catalog.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aionbd;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto catalog = decode_catalog(bytes);
  if (!catalog.has_value()) {
    CHECK_TRUE(catalog.error().code() == Code::kCorruption);
    return 0;
  }
  if (size > 0) CHECK_TRUE(encode_catalog(*catalog) == bytes);
  std::set<SegmentId> files;
  for (const CatalogEntry& entry : catalog->collections) {
    std::set<SegmentId> segments;
    for (const SegmentId id : entry.segments) {
      CHECK_LT(id, catalog->next_segment);
      CHECK_TRUE(files.insert(id).second);
      segments.insert(id);
    }
    std::set<std::tuple<SegmentId, IndexKind, Metric>> indexes;
    for (const CataloguedIndex& index : entry.indexes) {
      CHECK_LT(index.file, catalog->next_segment);
      CHECK_TRUE(files.insert(index.file).second);
      CHECK_TRUE(segments.contains(index.segment));
      CHECK_TRUE(indexes.emplace(index.segment, index.kind, index.metric).second);
    }
  }
  return 0;
}
