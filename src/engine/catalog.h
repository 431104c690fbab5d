// The engine's part of the manifest: which collections exist and which segments they are made of.
// Layout: docs/format.md, "Catalog".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/op.h"
#include "storage/storage.h"

namespace aionbd {

struct CatalogEntry {
  CollectionUid uid = 0;
  std::string name;
  CollectionOptions options;
  Lsn applied = 0;  // records up to here are in the segments
  std::vector<SegmentId> segments;
};

struct Catalog {
  SegmentId next_segment = 1;
  std::vector<CatalogEntry> collections;
};

std::string encode_catalog(const Catalog& catalog);
/// Empty bytes are an empty catalog. Errors: corruption.
Result<Catalog> decode_catalog(std::string_view bytes);

}  // namespace aionbd
