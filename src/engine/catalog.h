// The engine's part of the manifest: which collections exist and which segments they are made of.
// Layout: docs/format.md, "Catalog".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/op.h"
#include "storage/storage.h"

namespace aionbd {

/// What a file that holds an index is made of. Persistent, never renumber.
enum class IndexKind : uint32_t {
  kVector = 1,  // for one metric
  kFields = 2,  // for filters
};

/// A file that holds an index of a segment.
struct CataloguedIndex {
  SegmentId segment = 0;
  IndexKind kind = IndexKind::kVector;
  Metric metric = Metric::kDot;  // of a vector index
  SegmentId file = 0;
};

struct CatalogEntry {
  CollectionUid uid = 0;
  std::string name;
  CollectionOptions options;
  Lsn applied = 0;  // records up to here are in the segments
  std::vector<SegmentId> segments;
  std::vector<CataloguedIndex> indexes;
};

struct Catalog {
  SegmentId next_segment = 1;
  std::vector<CatalogEntry> collections;
};

std::string encode_catalog(const Catalog& catalog);
/// Empty bytes are an empty catalog. Errors: corruption.
Result<Catalog> decode_catalog(std::string_view bytes);

}  // namespace aionbd
