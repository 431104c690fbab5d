// Shows what a file of a store holds, with the readers that recovery uses. A reader refuses a
// damaged file as a whole, so headers and trailers are also shown as they lie there: whoever looks
// into a damaged file wants to see in which way it is.
#include <algorithm>
#include <array>

#include "aionbd/store.h"
#include "engine/catalog.h"
#include "engine/index_file.h"
#include "engine/segment_sections.h"
#include "storage/store_files.h"

namespace aionbd {
namespace {

std::string hex(uint64_t value) {
  return "0x" + hex16(value);
}

std::string_view id_type_name(IdType type) {
  return type == IdType::kU64 ? "u64" : "string";
}

std::string_view metric_text(Metric metric) {
  switch (metric) {
    case Metric::kDot: return "dot";
    case Metric::kL2: return "l2";
    case Metric::kCosine: return "cosine";
  }
  return "unknown";
}

std::pair<std::string, std::string> split_path(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

// ---- Manifest -----------------------------------------------------------------------------------

void show_collections(const Catalog& catalog, FileVisitor& visitor) {
  const FileField head[] = {{"next_segment", catalog.next_segment},
                            {"collections", uint64_t{catalog.collections.size()}}};
  visitor.object("catalog", head);
  visitor.begin_list("collections");
  for (const CatalogEntry& entry : catalog.collections) {
    Value::Array segments;
    for (const SegmentId id : entry.segments) segments.emplace_back(segment_name(id));
    Value::Array indexes;
    for (const CataloguedIndex& index : entry.indexes) {
      const bool vectors = index.kind == IndexKind::kVector;
      indexes.emplace_back(segment_name(index.file) + " (" +
                           (vectors ? std::string(metric_text(index.metric)) : "fields") + " of " +
                           segment_name(index.segment) + ")");
    }
    const FileField fields[] = {
        {"name", entry.name},
        {"uid", entry.uid},
        {"applied", entry.applied},
        {"dimension", uint64_t{entry.options.dimension}},
        {"id_type", id_type_name(entry.options.id_type)},
        {"metric", entry.options.metric ? Value(metric_text(*entry.options.metric)) : Value()},
        {"strict_finite", entry.options.strict_finite},
        {"segments", std::move(segments)},
        {"indexes", std::move(indexes)}};
    visitor.item(fields);
  }
  visitor.end_list();
}

Status describe_manifest(FileSystem* files, const std::string& path, FileVisitor& visitor) {
  ASSIGN_OR_RETURN(const std::string bytes, files->read(path, kManifestBytesMax));
  if (bytes.size() >= sizeof(ManifestHeader)) {
    const auto header = read_as<ManifestHeader>(as_bytes_of(bytes));
    const FileField fields[] = {{"kind", "manifest"},
                                {"file_bytes", uint64_t{bytes.size()}},
                                {"version", uint64_t{header.version}},
                                {"store_id", hex(header.store_id)},
                                {"number", header.number},
                                {"replay_after", header.replay_after},
                                {"durable_lsn", header.durable_lsn},
                                {"segments", header.segments_count},
                                {"catalog_bytes", header.catalog_bytes}};
    visitor.object("header", fields);
  }
  ASSIGN_OR_RETURN(const Manifest manifest, decode_manifest(as_bytes_of(bytes), path));
  visitor.begin_list("files");
  for (const ManifestSegment& segment : manifest.segments) {
    const FileField fields[] = {{"file", segment_name(segment.id)},
                                {"file_bytes", segment.file_bytes},
                                {"trailer_checksum", hex(segment.trailer_checksum)}};
    visitor.item(fields);
  }
  visitor.end_list();
  ASSIGN_OR_RETURN(const Catalog catalog, decode_catalog(manifest.catalog));
  show_collections(catalog, visitor);
  return {};
}

// ---- Log ----------------------------------------------------------------------------------------

/// What a record does, for people: "upsert", its collection and the number of points.
void show_record(Bytes record, std::vector<FileField>& fields) {
  const auto op = decode_op(record);
  if (!op.has_value()) {
    fields.push_back({"op", "unreadable: " + op.error().message()});
    return;
  }
  if (const auto* create = std::get_if<CreateOp>(&*op)) {
    fields.push_back({"op", "create"});
    fields.push_back({"name", create->name});
  } else if (const auto* drop = std::get_if<DropOp>(&*op)) {
    fields.push_back({"op", "drop"});
    fields.push_back({"collection", drop->collection});
  } else if (const auto* upsert = std::get_if<UpsertOp>(&*op)) {
    fields.push_back({"op", "upsert"});
    fields.push_back({"collection", upsert->collection});
    fields.push_back({"points", uint64_t{upsert->ids.size()}});
  } else if (const auto* remove = std::get_if<RemoveOp>(&*op)) {
    fields.push_back({"op", "remove"});
    fields.push_back({"collection", remove->collection});
    fields.push_back({"points", uint64_t{remove->ids.size()}});
  }
}

std::string_view frame_name(FrameType type) {
  switch (type) {
    case FrameType::kRecord: return "record";
    case FrameType::kSeal: return "seal";
    case FrameType::kEpoch: return "epoch";
  }
  return "unknown";
}

Status describe_log(FileSystem* files, const std::string& path, FileVisitor& visitor) {
  ASSIGN_OR_RETURN(const uint64_t file_bytes, files->file_size(path));
  ASSIGN_OR_RETURN(const std::string head, files->read_at(path, 0, sizeof(LogHeader)));
  if (head.size() == sizeof(LogHeader)) {
    const auto header = read_as<LogHeader>(as_bytes_of(head));
    const FileField fields[] = {{"kind", "log"},
                                {"file_bytes", file_bytes},
                                {"version", uint64_t{header.version}},
                                {"store_id", hex(header.store_id)},
                                {"first_lsn", header.first_lsn},
                                {"epoch", hex(header.epoch)},
                                {"checksum", hex(header.checksum)}};
    visitor.object("header", fields);
  }
  ASSIGN_OR_RETURN(LogReader reader, LogReader::open_alone(files, path));
  visitor.begin_list("frames");
  Status status;
  std::vector<FileField> fields;
  while (true) {
    const uint64_t offset = reader.offset();
    const auto frame = reader.next();
    if (!frame.has_value()) {
      status = frame.error();
      break;
    }
    if (!frame->has_value()) break;
    const FrameHeader& header = (*frame)->header;
    fields.clear();
    fields.push_back({"offset", offset});
    fields.push_back({"type", frame_name(header.type)});
    fields.push_back({"lsn", header.lsn});
    fields.push_back({"durable_lsn", header.durable_lsn});
    fields.push_back({"epoch", hex(header.epoch)});
    fields.push_back({"payload_bytes", uint64_t{header.payload_bytes}});
    fields.push_back({"payload_checksum", hex(header.payload_checksum)});
    if (header.type == FrameType::kRecord) show_record((*frame)->payload, fields);
    visitor.item(fields);
  }
  visitor.end_list();
  RETURN_IF_ERROR(status);
  const FileField end[] = {
      {"offset", reader.offset()},
      {"last_lsn", reader.last_lsn()},
      {"unread_bytes", file_bytes - reader.offset()},
      {"problem", reader.problem().empty() ? Value() : Value(reader.problem())}};
  visitor.object("end", end);
  if (reader.problem().empty()) return {};
  return corruption(
      "log ends before its file does (a torn tail or damage, `aionbd verify` tells "
      "which): " +
      reader.problem() + ": '" + path + "' at offset " + std::to_string(reader.offset()));
}

// ---- Segment and index files --------------------------------------------------------------------

enum class SegmentKind : uint8_t { kRows, kVectorIndex, kFieldIndex, kUnknown };

/// A file does not say what it is; its sections do.
SegmentKind kind_of(std::span<const SectionPlace> places) {
  bool first = false;
  for (const SectionPlace& place : places) {
    if (place.tag != kTagMeta) continue;
    if (place.bytes == kMetaBytes) return SegmentKind::kRows;
    first = true;
  }
  if (first) return SegmentKind::kVectorIndex;
  const bool fields = places.size() == 1 && places.front().tag == kTagFields;
  return fields ? SegmentKind::kFieldIndex : SegmentKind::kUnknown;
}

std::string_view kind_name(SegmentKind kind) {
  switch (kind) {
    case SegmentKind::kRows: return "segment";
    case SegmentKind::kVectorIndex: return "vector index";
    case SegmentKind::kFieldIndex: return "field index";
    case SegmentKind::kUnknown: break;
  }
  return "unknown";
}

std::string_view section_name(SegmentKind kind, SectionTag tag) {
  // By tag, from 1 on; docs/format.md.
  static constexpr std::array<std::string_view, 13> kRows = {
      "meta",     "ids",   "id offsets", "id texts", "values",      "norms",      "payload offsets",
      "payloads", "kills", "unknown",    "unknown",  "values (u8)", "values (i8)"};
  static constexpr std::array<std::string_view, 17> kVector = {
      "header", "projection",   "high plane", "low plane",  "step",      "norm",
      "error",  "neighbours",   "entries",    "curve",      "centroids", "centroid codes",
      "radii",  "list offsets", "members",    "list codes", "list curve"};
  if (kind == SegmentKind::kRows && tag >= 1 && tag <= kRows.size()) return kRows[tag - 1];
  if (kind == SegmentKind::kVectorIndex && tag >= 1 && tag <= kVector.size())
    return kVector[tag - 1];
  if (kind == SegmentKind::kFieldIndex && tag == kTagFields) return "fields";
  return "unknown";
}

void show_segment_ends(Bytes bytes, FileVisitor& visitor) {
  const auto header = read_as<SegmentHeader>(bytes);
  const FileField head[] = {
      {"kind", "segment container"},         {"file_bytes", uint64_t{bytes.size()}},
      {"version", uint64_t{header.version}}, {"store_id", hex(header.store_id)},
      {"segment_id", header.segment_id},     {"checksum", hex(header.checksum)}};
  visitor.object("header", head);
  if (bytes.size() < sizeof(SegmentHeader) + sizeof(SegmentTrailer)) return;
  const auto trailer = read_as<SegmentTrailer>(bytes.last(sizeof(SegmentTrailer)));
  const FileField fields[] = {{"version", uint64_t{trailer.version}},
                              {"sections", uint64_t{trailer.sections_count}},
                              {"store_id", hex(trailer.store_id)},
                              {"segment_id", trailer.segment_id},
                              {"data_bytes", trailer.data_bytes},
                              {"file_bytes", trailer.file_bytes},
                              {"tables_checksum", hex(trailer.tables_checksum)},
                              {"checksum", hex(trailer.checksum)}};
  visitor.object("trailer", fields);
}

void show_sections(std::span<const SectionPlace> places, std::span<const uint64_t> damaged,
                   FileVisitor& visitor) {
  const SegmentKind kind = kind_of(places);
  visitor.begin_list("sections");
  for (const SectionPlace& place : places) {
    const uint64_t end = place.offset + place.bytes;
    const auto bad = std::count_if(damaged.begin(), damaged.end(), [&](uint64_t block) {
      return block < end && block + kBlockBytes > place.offset && place.bytes > 0;
    });
    const FileField fields[] = {{"tag", uint64_t{place.tag}},
                                {"name", section_name(kind, place.tag)},
                                {"offset", place.offset},
                                {"bytes", place.bytes},
                                {"damaged_blocks", static_cast<uint64_t>(bad)}};
    visitor.item(fields);
  }
  visitor.end_list();
}

/// What the small section of a segment of rows says.
void show_meta(const SegmentFile& file, FileVisitor& visitor) {
  const auto section = file.section(kTagMeta);
  if (!section.has_value()) return;
  const auto bytes = section->all();
  if (!bytes.has_value()) return;
  Decoder decoder(*bytes);
  const auto rows = decoder.get<uint64_t>();
  const auto kills = decoder.get<uint64_t>();
  const auto dimension = decoder.get<uint32_t>();
  const auto id_type = decoder.get<uint32_t>();
  if (!decoder.finished()) return;
  const FileField fields[] = {
      {"rows", rows},
      {"kills", kills},
      {"dimension", uint64_t{dimension}},
      {"id_type", id_type == static_cast<uint32_t>(IdType::kU64) ? "u64" : "string"}};
  visitor.object("rows", fields);
}

Status describe_segment(FileSystem* files, const std::string& path, FileVisitor& visitor) {
  ASSIGN_OR_RETURN(auto image, files->map(path));
  if (image->bytes().size() < sizeof(SegmentHeader)) {
    return corruption("segment is damaged: file is too short: '" + path + "' at offset " +
                      std::to_string(image->bytes().size()));
  }
  show_segment_ends(image->bytes(), visitor);
  const auto header = read_as<SegmentHeader>(image->bytes());
  ASSIGN_OR_RETURN(const auto file, open_segment_image(std::move(image), path, header.store_id,
                                                       header.segment_id, std::nullopt));
  ASSIGN_OR_RETURN(const std::vector<uint64_t> damaged, file->damaged_blocks({}));
  const std::vector<SectionPlace> places = file->places();
  const SegmentKind kind = kind_of(places);
  Value::Array offsets;
  for (const uint64_t offset : damaged) {
    if (offsets.size() == kFindingsMax) break;
    offsets.emplace_back(std::to_string(offset));
  }
  const uint64_t blocks =
      places.empty() ? 1
                     : (places.back().offset + places.back().bytes + kBlockBytes - 1) / kBlockBytes;
  const FileField content[] = {{"kind", kind_name(kind)},
                               {"blocks", blocks},
                               {"damaged_blocks", uint64_t{damaged.size()}},
                               {"damaged_at", std::move(offsets)}};
  visitor.object("content", content);
  show_sections(places, damaged, visitor);
  if (kind == SegmentKind::kRows) show_meta(*file, visitor);
  if (damaged.empty()) return {};
  return corruption("segment is damaged: block checksum differs: '" + path + "' at offset " +
                    std::to_string(damaged.front()));
}

}  // namespace

Status describe_file(const std::string& path, FileVisitor& visitor) {
  FileSystem* const files = &posix_file_system();
  ASSIGN_OR_RETURN(const std::string head, files->read_at(path, 0, sizeof(uint64_t)));
  uint64_t magic = 0;
  if (head.size() == sizeof(magic)) magic = read_as<uint64_t>(as_bytes_of(head));
  if (magic == kManifestMagic) return describe_manifest(files, path, visitor);
  if (magic == kLogMagic) return describe_log(files, path, visitor);
  if (magic == kSegmentMagic) return describe_segment(files, path, visitor);
  const std::string name = split_path(path).second;
  if (name == kLockName) {
    const FileField fields[] = {{"kind", "lock"}};
    visitor.object("header", fields);
    return {};
  }
  if (name == kReserveName) {
    const FileField fields[] = {{"kind", "reserve"}};
    visitor.object("header", fields);
    return {};
  }
  // A file whose first bytes are damaged still has its name.
  if (parse_segment_name(name)) return describe_segment(files, path, visitor);
  if (parse_log_name(name)) return describe_log(files, path, visitor);
  if (name == kManifestName) return describe_manifest(files, path, visitor);
  return corruption("no file of a store: '" + path + "' begins with none of its marks");
}

}  // namespace aionbd
