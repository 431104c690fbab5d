// Reads a whole store and says what is wrong with it, with the readers that recovery uses.
//
// The order is that of trust: the manifest names the rest, the log is judged against the manifest,
// segments against both, and last come the files nobody names. Where the manifest is lost, each
// file is still checked against what it says of itself.
//
// No lock is taken: a checker that kept a server from starting would be an outage of its own. So
// that nothing is said about a store in motion, the lock is looked at before and after, and the
// manifest is read again at the end.
#include "engine/store_verify.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "engine/catalog.h"
#include "engine/index_file.h"
#include "engine/op.h"
#include "engine/sealed_segment.h"
#include "engine/segment_sections.h"
#include "engine/store_findings.h"
#include "storage/store_files.h"

namespace aionbd {
namespace {

Status in_use(const std::string& dir) {
  return Status(Code::kInUse,
                "a process has the data directory open: '" + dir + "'; stop the server first");
}

/// True when status is an answer to the caller, not a finding about a file.
bool stopped(const Status& status) {
  return status.code() == Code::kUnavailable;
}

class StoreVerifier {
 public:
  StoreVerifier(FileSystem* files, std::string dir, const StoreListing& listing,
                const StoreProgress& progress, uint64_t bytes_total)
      : files_(files),
        dir_(std::move(dir)),
        listing_(listing),
        findings_(dir_),
        meter_(progress, bytes_total) {}

  Status run() {
    read_root();
    if (has_root_) RETURN_IF_ERROR(check_log());
    if (has_root_) RETURN_IF_ERROR(check_collections());
    RETURN_IF_ERROR(check_unnamed());
    return {};
  }

  VerifyReport take() {
    report_.damage_count = findings_.damage_count();
    report_.notes_count = findings_.notes_count();
    report_.findings = findings_.take();
    return std::move(report_);
  }
  uint64_t manifest_number() const { return manifest_.number; }

 private:
  bool first_start_cut_short() {
    return listing_.segments.empty() && listing_.logs == std::vector<Lsn>{1} &&
           size_of(log_name(1)) <= sizeof(LogHeader);
  }
  void read_root();
  Status check_log();
  Status check_log_file(Lsn first_lsn);
  void check_record(const std::string& name, uint64_t offset, Lsn lsn, Bytes record);
  Status check_collections();
  Status check_collection(const CatalogEntry& entry);
  Status check_rows(const SealedSegment& segment, const CatalogEntry& entry,
                    const std::string& name);
  Status check_index(const CataloguedIndex& index, uint32_t rows, uint32_t dimension);
  Result<std::shared_ptr<SegmentFile>> open_and_read(SegmentId id);
  Status check_unnamed();
  Status check_alone(SegmentId id);
  uint64_t size_of(const std::string& name) {
    return files_->file_size(dir_ + "/" + name).has_value()
               ? files_->file_size(dir_ + "/" + name).value()
               : 0;
  }

  FileSystem* const files_;
  const std::string dir_;
  const StoreListing& listing_;
  Findings findings_;
  ProgressMeter meter_;
  VerifyReport report_;
  bool has_root_ = false;
  Manifest manifest_;
  Catalog catalog_;
  std::map<SegmentId, SegmentStamp> named_;     // by the manifest
  std::set<SegmentId> seen_;                    // opened because a collection names them
  std::map<CollectionUid, CreateOp> from_log_;  // collections the log creates
};

// ---- Root ---------------------------------------------------------------------------------------

void StoreVerifier::read_root() {
  const std::string name(kManifestName);
  auto manifest = read_manifest(files_, dir_);
  if (!manifest.has_value()) {
    if (manifest.error().code() == Code::kNotFound && first_start_cut_short()) {
      findings_.note(log_name(1), std::nullopt,
                     "a first start that was cut short; the next start begins again");
    } else if (manifest.error().code() == Code::kNotFound) {
      findings_.damage(name, std::nullopt, "manifest is missing: nothing says what lives");
    } else {
      findings_.damage(name, manifest.error());
    }
    return;
  }
  ++report_.files;
  report_.bytes += size_of(name);
  manifest_ = *std::move(manifest);
  has_root_ = true;
  for (const ManifestSegment& segment : manifest_.segments) {
    named_[segment.id] = {segment.file_bytes, segment.trailer_checksum};
  }
  auto catalog = decode_catalog(manifest_.catalog);
  if (!catalog.has_value()) {
    findings_.damage(name, catalog.error());
    return;
  }
  catalog_ = *std::move(catalog);
  report_.collections = catalog_.collections.size();
}

// ---- Log ----------------------------------------------------------------------------------------

Status StoreVerifier::check_log() {
  const Lsn start = manifest_.replay_after + 1;
  for (size_t i = 0; i < listing_.logs.size(); ++i) {
    const bool obsolete = i + 1 < listing_.logs.size() && listing_.logs[i + 1] <= start;
    if (obsolete) {
      findings_.note(log_name(listing_.logs[i]), std::nullopt,
                     "leftover: no start needs this log file, the next one removes it");
      continue;
    }
    RETURN_IF_ERROR(check_log_file(listing_.logs[i]));
  }
  // Whether the end is debris of a crash or damage is for the same judge as at a start.
  const auto scan = scan_log(files_, dir_, manifest_.store_id, listing_.logs,
                             manifest_.replay_after, manifest_.durable_lsn);
  if (!scan.has_value()) {
    findings_.damage("", scan.error());
    return {};
  }
  const std::string last = log_name(scan->files.back().first_lsn);
  if (scan->discarded_bytes != 0) {
    findings_.note(last, scan->end_offset,
                   "torn tail of " + std::to_string(scan->discarded_bytes) +
                       " bytes, debris of a crash that holds nothing acknowledged as durable; the "
                       "next start cuts it");
  }
  if (scan->last_is_debris) {
    findings_.note(last, 0, "log file that was never finished; the next start makes it anew");
  }
  for (const CatalogEntry& entry : catalog_.collections) {
    if (entry.uid <= scan->last_lsn && entry.applied <= scan->last_lsn) continue;
    findings_.damage(kManifestName, std::nullopt,
                     "manifest is ahead of the log: collection " + entry.name + " names record " +
                         std::to_string(std::max(entry.uid, entry.applied)) + ", the log ends at " +
                         std::to_string(scan->last_lsn));
  }
  return {};
}

Status StoreVerifier::check_log_file(Lsn first_lsn) {
  const std::string name = log_name(first_lsn);
  ++report_.files;
  ++report_.log_files;
  const uint64_t bytes = size_of(name);
  report_.bytes += bytes;
  auto reader = LogReader::open(files_, dir_, manifest_.store_id, first_lsn);
  if (!reader.has_value()) return meter_.advance(bytes);  // scan_log says what it means
  while (true) {
    const uint64_t offset = reader->offset();
    const auto frame = reader->next();
    if (!frame.has_value()) {
      findings_.damage(name, frame.error());
      break;
    }
    if (!frame->has_value()) break;
    const FrameHeader& header = (*frame)->header;
    if (header.type != FrameType::kRecord) continue;
    ++report_.log_records;
    if (header.lsn > manifest_.replay_after)
      check_record(name, offset, header.lsn, (*frame)->payload);
    if (!meter_.within(reader->offset())) return unavailable("stopped while reading the log");
  }
  return meter_.advance(bytes);
}

void StoreVerifier::check_record(const std::string& name, uint64_t offset, Lsn lsn, Bytes record) {
  const std::string which = "record " + std::to_string(lsn);
  const auto op = decode_op(record);
  if (!op.has_value()) {
    findings_.damage(name, offset, which + ": " + op.error().message());
    return;
  }
  if (const auto* create = std::get_if<CreateOp>(&*op)) {
    from_log_[lsn] = *create;
    return;
  }
  const auto options_of = [this](CollectionUid uid) -> const CollectionOptions* {
    for (const CatalogEntry& entry : catalog_.collections) {
      if (entry.uid == uid) return &entry.options;
    }
    const auto created = from_log_.find(uid);
    return created == from_log_.end() ? nullptr : &created->second.options;
  };
  if (const auto* upsert = std::get_if<UpsertOp>(&*op)) {
    const CollectionOptions* options = options_of(upsert->collection);
    if (options == nullptr) return;  // of a collection dropped since
    if (upsert->dimension != options->dimension || upsert->id_type != options->id_type) {
      findings_.damage(name, offset, which + ": does not fit its collection");
    }
  } else if (const auto* remove = std::get_if<RemoveOp>(&*op)) {
    const CollectionOptions* options = options_of(remove->collection);
    const bool fits = options == nullptr ||
                      std::all_of(remove->ids.begin(), remove->ids.end(),
                                  [&](const PointId& id) { return id.type() == options->id_type; });
    if (!fits) findings_.damage(name, offset, which + ": does not fit its collection");
  }
}

// ---- Segments -----------------------------------------------------------------------------------

/// Opens a file the catalog names and reads all of it. Not found: said already, as a finding.
Result<std::shared_ptr<SegmentFile>> StoreVerifier::open_and_read(SegmentId id) {
  const std::string name = segment_name(id);
  seen_.insert(id);
  const auto stamp = named_.find(id);
  if (stamp == named_.end()) {
    findings_.damage(kManifestName, std::nullopt,
                     "the catalog names a file the manifest does not: " + name);
    return not_found(name);
  }
  const uint64_t bytes = size_of(name);
  ++report_.files;
  report_.bytes += bytes;
  auto file = open_segment_file(files_, dir_, manifest_.store_id, id, stamp->second);
  if (!file.has_value()) {
    if (file.error().code() == Code::kNotFound) {
      findings_.damage(name, std::nullopt, "file is missing: the manifest names it");
    } else {
      findings_.damage(name, file.error());
    }
    RETURN_IF_ERROR(meter_.advance(bytes));
    return not_found(name);
  }
  ASSIGN_OR_RETURN(const std::vector<uint64_t> damaged,
                   (*file)->damaged_blocks([this](uint64_t done) { return meter_.within(done); }));
  for (const uint64_t offset : damaged) {
    findings_.damage(name, offset, "segment is damaged: block checksum differs");
  }
  RETURN_IF_ERROR(meter_.advance(bytes));
  if (!damaged.empty()) return not_found(name);
  return file;
}

Status StoreVerifier::check_collections() {
  for (const CatalogEntry& entry : catalog_.collections) RETURN_IF_ERROR(check_collection(entry));
  return {};
}

Status StoreVerifier::check_collection(const CatalogEntry& entry) {
  std::vector<SegmentView> views;
  std::vector<Kill> kills;
  std::map<SegmentId, uint32_t> rows_of;
  const uint64_t damage_before = findings_.damage_count();
  for (const SegmentId id : entry.segments) {
    const std::string name = segment_name(id);
    ++report_.segments;
    auto file = open_and_read(id);
    if (!file.has_value()) {
      if (stopped(file.error())) return file.error();
      continue;
    }
    const auto segment =
        SealedSegment::open(*std::move(file), entry.options.dimension, entry.options.id_type);
    if (!segment.has_value()) {
      findings_.damage(name, segment.error());
      continue;
    }
    rows_of[id] = (*segment)->rows_count();
    report_.rows += (*segment)->rows_count();
    RETURN_IF_ERROR(check_rows(**segment, entry, name));
    const auto more = (*segment)->kills();
    if (!more.has_value()) {
      findings_.damage(name, more.error());
    } else {
      kills.insert(kills.end(), more->begin(), more->end());
    }
    views.push_back({*segment, (*segment)->rows_count(), std::make_shared<const DeadRows>(), 0});
  }
  for (SegmentView& view : views) {
    std::vector<RowId> dead;
    for (const Kill& kill : kills) {
      if (kill.segment != view.segment->id()) continue;
      if (kill.row >= view.rows) {
        findings_.damage(segment_name(kill.segment), std::nullopt,
                         "row " + std::to_string(kill.row) +
                             " is said to be deleted, the segment has only " +
                             std::to_string(view.rows));
        continue;
      }
      dead.push_back(kill.row);
    }
    view.dead = std::make_shared<const DeadRows>(view.dead->with(dead));
    report_.rows_live += view.live();
  }
  if (findings_.damage_count() == damage_before) {
    const auto rows = rows_in_id_order(views, entry.options.id_type);
    if (!rows.has_value()) {
      findings_.damage("", std::nullopt,
                       "collection " + entry.name + ": " + rows.error().message());
    }
  }
  for (const CataloguedIndex& index : entry.indexes) {
    const auto rows = rows_of.find(index.segment);
    const uint32_t count = rows == rows_of.end() ? UINT32_MAX : rows->second;
    RETURN_IF_ERROR(check_index(index, count, entry.options.dimension));
  }
  return {};
}

/// What checksums cannot say: that the writer wrote rows in order, and payloads.
Status StoreVerifier::check_rows(const SealedSegment& segment, const CatalogEntry& entry,
                                 const std::string& name) {
  constexpr RowId kRowsPerLook = 65536;
  PointId before;
  for (RowId row = 0; row < segment.rows_count(); ++row) {
    const auto fail = [&](const std::string& what) {
      findings_.damage(name, std::nullopt, "row " + std::to_string(row) + ": " + what);
    };
    const auto id = segment.id_bytes(row);
    const auto payload = segment.payload(row);
    const auto values = segment.rows(row, 1);
    if (!id.has_value()) {
      fail(id.error().message());
      return {};  // the others would say the same
    }
    PointId now = point_id_of(entry.options.id_type, *id);
    if (row > 0 && !(before < now)) fail("ids are not ascending");
    before = std::move(now);
    if (!payload.has_value()) fail(payload.error().message());
    if (!values.has_value()) {
      fail(values.error().message());
      return {};
    }
    const float* floats = values->values.floats;  // bytes are finite
    const bool finite = floats == nullptr || all_finite(std::span(floats, entry.options.dimension));
    if (entry.options.strict_finite && !finite) fail("a value is not finite");
    if (row % kRowsPerLook == 0 && !meter_.within(0)) return unavailable("stopped between rows");
  }
  return {};
}

/// `rows` is UINT32_MAX when the segment itself cannot be read.
Status StoreVerifier::check_index(const CataloguedIndex& index, uint32_t rows, uint32_t dimension) {
  const std::string name = segment_name(index.file);
  ++report_.indexes;
  const auto file = open_and_read(index.file);
  if (!file.has_value()) return stopped(file.error()) ? file.error() : Status();
  if (rows == UINT32_MAX) return {};
  if (index.kind == IndexKind::kFields) {
    const auto fields = open_field_index(**file, rows);
    if (!fields.has_value()) findings_.damage(name, fields.error());
    return {};
  }
  const auto vectors = open_vector_index(**file, rows, dimension);
  if (!vectors.has_value()) {
    findings_.damage(name, vectors.error());
  } else if ((*vectors)->metric() != index.metric) {
    findings_.damage(name, std::nullopt, "vector index: made for another metric");
  }
  return {};
}

// ---- The rest -----------------------------------------------------------------------------------

/// Without a manifest a file is checked against what it says of itself.
Status StoreVerifier::check_alone(SegmentId id) {
  const std::string name = segment_name(id);
  const uint64_t bytes = size_of(name);
  ++report_.files;
  report_.bytes += bytes;
  const auto head = files_->read_at(dir_ + "/" + name, 0, sizeof(SegmentHeader));
  if (!head.has_value() || head->size() < sizeof(SegmentHeader)) {
    findings_.damage(name, 0, "file is too short");
    return meter_.advance(bytes);
  }
  const auto header = read_as<SegmentHeader>(as_bytes_of(*head));
  const auto file = open_segment_file(files_, dir_, header.store_id, id, std::nullopt);
  if (!file.has_value()) {
    findings_.damage(name, file.error());
    return meter_.advance(bytes);
  }
  ASSIGN_OR_RETURN(const std::vector<uint64_t> damaged,
                   (*file)->damaged_blocks([this](uint64_t done) { return meter_.within(done); }));
  for (const uint64_t offset : damaged) {
    findings_.damage(name, offset, "segment is damaged: block checksum differs");
  }
  return meter_.advance(bytes);
}

Status StoreVerifier::check_unnamed() {
  for (const SegmentId id : listing_.segments) {
    if (!has_root_) {
      RETURN_IF_ERROR(check_alone(id));
    } else if (!named_.contains(id)) {
      findings_.note(segment_name(id), std::nullopt,
                     "leftover: the manifest does not name this file, the next start removes it");
    }
  }
  // Named by the manifest, used by no collection: dead weight, unless the catalog is unreadable.
  for (const auto& entry : named_) {
    if (seen_.contains(entry.first)) continue;
    findings_.note(segment_name(entry.first), std::nullopt,
                   "the manifest names this file, no collection uses it");
    const auto file = open_and_read(entry.first);
    if (!file.has_value() && stopped(file.error())) return file.error();
  }
  if (!has_root_) {
    for (const Lsn first_lsn : listing_.logs) {
      const std::string name = log_name(first_lsn);
      ++report_.files;
      ++report_.log_files;
      auto reader = LogReader::open_alone(files_, dir_ + "/" + name);
      if (!reader.has_value()) {
        findings_.damage(name, reader.error());
        continue;
      }
      while (true) {
        const auto frame = reader->next();
        if (!frame.has_value() || !frame->has_value()) break;
        if ((*frame)->header.type == FrameType::kRecord) ++report_.log_records;
      }
      if (!reader->problem().empty()) {
        findings_.note(name, reader->offset(), "log ends with: " + reader->problem());
      }
    }
  }
  for (const std::string& name : listing_.temps) {
    findings_.note(name, std::nullopt, "leftover of a crash, the next start removes it");
  }
  for (const std::string& name : listing_.foreign) {
    findings_.note(name, std::nullopt, "foreign: no file of a store, left alone");
  }
  return {};
}

}  // namespace

Result<VerifyReport> verify_store_in(FileSystem* files, const std::string& dir,
                                     const StoreProgress& progress) {
  const std::string lock_path = dir + "/" + std::string(kLockName);
  ASSIGN_OR_RETURN(const StoreListing listing, list_store(files, dir));
  if (!listing.has_manifest && listing.logs.empty() && listing.segments.empty()) {
    return not_found("there is no store in '" + dir + "'");
  }
  ASSIGN_OR_RETURN(const bool locked, files->is_locked(lock_path));
  if (locked) return in_use(dir);
  uint64_t total = 0;
  const auto add_size = [&](const std::string& name) {
    const auto size = files->file_size(dir + "/" + name);
    if (size.has_value()) total += *size;
  };
  for (const Lsn first_lsn : listing.logs) add_size(log_name(first_lsn));
  for (const SegmentId id : listing.segments) add_size(segment_name(id));
  StoreVerifier verifier(files, dir, listing, progress, total);
  RETURN_IF_ERROR(verifier.run());
  ASSIGN_OR_RETURN(const bool locked_now, files->is_locked(lock_path));
  if (locked_now) return in_use(dir);
  const auto again = read_manifest(files, dir);
  if (again.has_value() && again->number != verifier.manifest_number() &&
      verifier.manifest_number() != 0) {
    return in_use(dir);
  }
  return verifier.take();
}

Result<VerifyReport> verify_store(const std::string& dir, const StoreProgress& progress) {
  return verify_store_in(&posix_file_system(), dir, progress);
}

}  // namespace aionbd
