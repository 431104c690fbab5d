#include "engine/catalog.h"

#include <set>
#include <tuple>

namespace aionbd {

namespace {
constexpr uint32_t kCatalogVersion = 2;
constexpr size_t kIndexBytes = 8 + 4 + 4 + 8;
constexpr size_t kEntryBytesMin =
    8 + 8 + 4 + 8 + 4 + 4;  // bounds the reserve by the bytes there are

/// Errors: corruption for what no catalog of ours names: an index of a segment that is not the
/// collection's, or two of one kind and metric.
Status decode_indexes(Decoder& decoder, CatalogEntry& entry) {
  const auto indexes = decoder.get<uint32_t>();
  if (!decoder.ok() || indexes > decoder.remaining() / kIndexBytes) {
    return corruption("manifest: catalog entry is malformed");
  }
  const std::set<SegmentId> segments(entry.segments.begin(), entry.segments.end());
  std::set<std::tuple<SegmentId, uint32_t, uint32_t>> met;
  for (uint32_t n = 0; n < indexes; ++n) {
    CataloguedIndex index;
    index.segment = decoder.get<uint64_t>();
    const auto kind = decoder.get<uint32_t>();
    const auto metric = decoder.get<uint32_t>();
    index.file = decoder.get<uint64_t>();
    const bool vectors = kind == static_cast<uint32_t>(IndexKind::kVector);
    const bool fields = kind == static_cast<uint32_t>(IndexKind::kFields);
    const auto metric_max = vectors ? static_cast<uint32_t>(Metric::kCosine) : 0;
    if (!(vectors || fields) || metric > metric_max || !segments.contains(index.segment)) {
      return corruption("manifest: catalog names an index of no segment");
    }
    if (!met.emplace(index.segment, kind, metric).second) {
      return corruption("manifest: catalog names two indexes of one segment and kind");
    }
    index.kind = static_cast<IndexKind>(kind);
    index.metric = static_cast<Metric>(metric);
    entry.indexes.push_back(index);
  }
  return {};
}

/// Errors: corruption when two collections share a name or a uid, when a file belongs to two
/// places, or when its id would be given to a new one.
Status check_unique(const Catalog& catalog) {
  std::set<CollectionUid> uids;
  std::set<std::string_view> names;
  std::set<SegmentId> files;
  for (const CatalogEntry& entry : catalog.collections) {
    if (!uids.insert(entry.uid).second || !names.insert(entry.name).second) {
      return corruption("manifest: catalog names a collection twice: " + entry.name);
    }
    std::vector<SegmentId> ids = entry.segments;
    for (const CataloguedIndex& index : entry.indexes) ids.push_back(index.file);
    for (const SegmentId id : ids) {
      if (id >= catalog.next_segment || !files.insert(id).second) {
        return corruption("manifest: catalog names a file twice, or one that is yet to come: " +
                          std::to_string(id));
      }
    }
  }
  return {};
}

}  // namespace

std::string encode_catalog(const Catalog& catalog) {
  std::string out;
  Encoder encoder(&out);
  encoder.put(kCatalogVersion);
  encoder.put(static_cast<uint32_t>(catalog.collections.size()));
  encoder.put(catalog.next_segment);
  for (const CatalogEntry& entry : catalog.collections) {
    encoder.put(entry.uid);
    encode_collection_options(entry.options, encoder);
    encoder.put_string(entry.name);
    encoder.put(entry.applied);
    encoder.put(static_cast<uint32_t>(entry.segments.size()));
    for (const SegmentId id : entry.segments) encoder.put(id);
    encoder.put(static_cast<uint32_t>(entry.indexes.size()));
    for (const CataloguedIndex& index : entry.indexes) {
      encoder.put(index.segment);
      encoder.put(static_cast<uint32_t>(index.kind));
      encoder.put(static_cast<uint32_t>(index.metric));
      encoder.put(index.file);
    }
  }
  return out;
}

Result<Catalog> decode_catalog(std::string_view bytes) {
  Catalog out;
  if (bytes.empty()) return out;
  Decoder decoder(as_bytes_of(bytes));
  const auto version = decoder.get<uint32_t>();
  const auto count = decoder.get<uint32_t>();
  out.next_segment = decoder.get<uint64_t>();
  if (!decoder.ok() || version != kCatalogVersion || count > decoder.remaining() / kEntryBytesMin) {
    return corruption("manifest: catalog header is malformed");
  }
  out.collections.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    CatalogEntry entry;
    entry.uid = decoder.get<uint64_t>();
    const bool options_ok = decode_collection_options(decoder, entry.options);
    entry.name = std::string(decoder.get_string());
    entry.applied = decoder.get<uint64_t>();
    const auto segments = decoder.get<uint32_t>();
    if (!options_ok || !check_collection_name(entry.name).ok() ||
        segments > decoder.remaining() / sizeof(SegmentId)) {
      return corruption("manifest: catalog entry is malformed");
    }
    for (uint32_t s = 0; s < segments; ++s) entry.segments.push_back(decoder.get<uint64_t>());
    RETURN_IF_ERROR(decode_indexes(decoder, entry));
    out.collections.push_back(std::move(entry));
  }
  if (!decoder.finished()) return corruption("manifest: bytes after the catalog");
  RETURN_IF_ERROR(check_unique(out));
  return out;
}

}  // namespace aionbd
