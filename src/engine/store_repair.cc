// Salvage: everything of a damaged store that can still be proven, in a new store.
//
// The new store is written through the engine's own door, so that nothing damaged can be copied
// into it: a row is read, its checksums hold, it is a valid point, it is upserted. What is lost is
// told with file and place.
//
// Three things recovery never does are done here, because the alternative is losing more: a segment
// whose tables are damaged is read as far as single blocks prove themselves; log records behind a
// damaged place are applied; and where a list of deletions is lost, rows it deleted come back. All
// of it is reported. Where two segments then hold one id, the one with the higher file number is
// newer: a merge drops the rows that were dead by then.
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <set>

#include "aionbd/database.h"
#include "aionbd/store.h"
#include "engine/catalog.h"
#include "engine/engine.h"
#include "engine/salvaged_segment.h"
#include "engine/segment_sections.h"
#include "engine/store_findings.h"
#include "payload/payload.h"
#include "storage/store_files.h"

namespace aionbd {
namespace {

/// Written at once: a log record of a few MiB, so that memory stays small and commits are few.
constexpr size_t kBatchBytes = size_t{4} << 20;

constexpr std::string_view kPartialSuffix = ".partial";

/// Where the points of one collection of the damaged store go. Thread safety: single owner.
class SalvageTarget {
 public:
  SalvageTarget(std::shared_ptr<Collection> collection, RepairedCollection* report)
      : collection_(std::move(collection)), report_(report) {}

  /// Errors: of writing; a point that is none is counted as lost.
  Status add(Point point) {
    bytes_ += point.values.size() * sizeof(float) + 64 * (1 + point.payload.size());
    batch_.push_back(std::move(point));
    return bytes_ < kBatchBytes ? Status() : flush();
  }
  Status flush() {
    if (batch_.empty()) return {};
    Status done = collection_->upsert(batch_).status();
    if (done.code() == Code::kInvalidArgument) {
      done = Status();
      for (const Point& point : batch_) {
        const Status one = collection_->upsert(std::span(&point, 1)).status();
        if (one.code() == Code::kInvalidArgument) {
          ++report_->rows_lost;
        } else {
          RETURN_IF_ERROR(one);
        }
      }
    }
    batch_.clear();
    bytes_ = 0;
    return done;
  }
  Status remove(std::span<const PointId> ids) {
    RETURN_IF_ERROR(flush());
    const Status done = collection_->remove(ids).status();
    return done.code() == Code::kInvalidArgument ? Status() : done;
  }
  void lost_rows(uint64_t rows) { report_->rows_lost += rows; }
  RepairedCollection& report() { return *report_; }
  const Collection& collection() const { return *collection_; }

 private:
  const std::shared_ptr<Collection> collection_;
  RepairedCollection* const report_;
  std::vector<Point> batch_;
  size_t bytes_ = 0;
};

/// A collection of the damaged store. Thread safety: single owner.
struct Salvaged {
  std::string name;
  CollectionOptions options;
  Lsn applied = 0;
  bool dropped = false;
  std::unique_ptr<SalvageTarget> target;
};

class StoreRepair {
 public:
  StoreRepair(FileSystem* files, std::string dir, const StoreListing& listing, Database* database,
              const StoreProgress& progress, uint64_t bytes_total)
      : files_(files),
        dir_(std::move(dir)),
        listing_(listing),
        database_(database),
        findings_(dir_),
        meter_(progress, bytes_total) {}

  Status run() {
    read_root();
    if (has_root_) {
      for (const CatalogEntry& entry : catalog_.collections) RETURN_IF_ERROR(salvage(entry));
    } else {
      RETURN_IF_ERROR(salvage_rootless());
    }
    RETURN_IF_ERROR(salvage_log());
    for (auto& [uid, salvaged] : salvaged_) {
      if (!salvaged.dropped) RETURN_IF_ERROR(salvaged.target->flush());
    }
    return database_->checkpoint();
  }

  RepairReport take();

 private:
  using Segments = std::vector<SalvagedSegment>;
  using Dead = std::map<SegmentId, std::set<uint32_t>>;

  void read_root();
  uint64_t size_of(const std::string& name) {
    const auto size = files_->file_size(dir_ + "/" + name);
    return size.has_value() ? *size : 0;
  }
  Status open_target(CollectionUid uid, const std::string& name, const CollectionOptions& options,
                     Lsn applied);
  std::optional<SalvagedSegment> open_segment(SegmentId id, uint64_t store_id,
                                              const std::optional<SegmentStamp>& stamp);
  void note_kills(const SalvagedSegment& segment, Dead& dead);
  Status salvage(const CatalogEntry& entry);
  Status salvage_rootless();
  Status copy_rows(const SalvagedSegment& segment, const std::set<uint32_t>& dead,
                   SalvageTarget& target);
  void report_lost_rows(const SalvagedSegment& segment, uint32_t first, uint32_t end,
                        const Status& why);
  Status salvage_log();
  Status salvage_log_file(Lsn first_lsn, bool last_file, bool torn);
  Status read_frames(LogReader& reader, const std::string& name, bool debris_at_end);
  Status apply(Lsn lsn, Bytes record);
  Salvaged* find(CollectionUid uid, uint32_t dimension, IdType id_type);
  void lost_records(const std::string& name, std::optional<uint64_t> offset, Lsn first, Lsn last,
                    const std::string& why);

  FileSystem* const files_;
  const std::string dir_;
  const StoreListing& listing_;
  Database* const database_;
  Findings findings_;
  ProgressMeter meter_;
  RepairReport report_;
  bool has_root_ = false;
  Manifest manifest_;
  Catalog catalog_;
  std::map<CollectionUid, Salvaged> salvaged_;
  std::vector<std::unique_ptr<RepairedCollection>> reports_;
  Lsn last_lsn_ = 0;  // of the log so far
  Status failure_;    // of making a collection for a record
};

void StoreRepair::read_root() {
  auto manifest = read_manifest(files_, dir_);
  if (!manifest.has_value()) {
    findings_.damage(kManifestName, manifest.error());
    return;
  }
  auto catalog = decode_catalog(manifest->catalog);
  if (!catalog.has_value()) {
    findings_.damage(kManifestName, catalog.error());
    return;
  }
  manifest_ = *std::move(manifest);
  catalog_ = *std::move(catalog);
  has_root_ = true;
}

Status StoreRepair::open_target(CollectionUid uid, const std::string& name,
                                const CollectionOptions& options, Lsn applied) {
  ASSIGN_OR_RETURN(std::shared_ptr<Collection> collection,
                   database_->create_collection(name, options));
  reports_.push_back(std::make_unique<RepairedCollection>());
  reports_.back()->name = name;
  Salvaged& salvaged = salvaged_[uid];
  salvaged.name = name;
  salvaged.options = options;
  salvaged.applied = applied;
  salvaged.target = std::make_unique<SalvageTarget>(std::move(collection), reports_.back().get());
  return {};
}

// ---- Segments -----------------------------------------------------------------------------------

/// Nothing: the whole file is lost, which was said.
std::optional<SalvagedSegment> StoreRepair::open_segment(SegmentId id, uint64_t store_id,
                                                         const std::optional<SegmentStamp>& stamp) {
  const std::string name = segment_name(id);
  const auto whole = open_segment_file(files_, dir_, store_id, id, stamp);
  auto file = whole.has_value()
                  ? whole
                  : open_segment_file(files_, dir_, store_id, id, stamp, SegmentOpening::kSalvage);
  if (!whole.has_value()) findings_.damage(name, whole.error());
  if (!file.has_value()) {
    findings_.damage(name, std::nullopt,
                     "nothing of this segment can be read: all its rows are lost");
    ++report_.segments_lost;
    return std::nullopt;
  }
  auto segment = SalvagedSegment::open(*std::move(file));
  if (segment.has_value()) return *std::move(segment);
  findings_.damage(name, segment.error());
  ++report_.segments_lost;
  return std::nullopt;
}

void StoreRepair::note_kills(const SalvagedSegment& segment, Dead& dead) {
  uint64_t lost = 0;
  for (const Kill& kill : segment.kills(&lost)) dead[kill.segment].insert(kill.row);
  if (lost == 0) return;
  findings_.damage(segment_name(segment.id()), std::nullopt,
                   std::to_string(lost) +
                       " replacements or deletions of older rows cannot be read: rows deleted by "
                       "them are back");
}

Status StoreRepair::salvage(const CatalogEntry& entry) {
  RETURN_IF_ERROR(open_target(entry.uid, entry.name, entry.options, entry.applied));
  std::vector<SegmentId> ids = entry.segments;
  std::sort(ids.begin(), ids.end());  // newer rows are written later
  Segments segments;
  Dead dead;
  for (const SegmentId id : ids) {
    std::optional<SegmentStamp> stamp;
    for (const ManifestSegment& named : manifest_.segments) {
      if (named.id == id) stamp = SegmentStamp{named.file_bytes, named.trailer_checksum};
    }
    auto segment = open_segment(id, manifest_.store_id, stamp);
    if (!segment.has_value()) {
      RETURN_IF_ERROR(meter_.advance(size_of(segment_name(id))));
      continue;
    }
    const bool fits =
        segment->rows_count() == 0 || (segment->dimension() == entry.options.dimension &&
                                       segment->id_type() == entry.options.id_type);
    if (!fits) {
      findings_.damage(segment_name(id), std::nullopt,
                       "its rows do not fit the collection " + entry.name);
      ++report_.segments_lost;
      continue;
    }
    note_kills(*segment, dead);
    segments.push_back(*std::move(segment));
  }
  SalvageTarget& target = *salvaged_[entry.uid].target;
  for (const SalvagedSegment& segment : segments) {
    RETURN_IF_ERROR(copy_rows(segment, dead[segment.id()], target));
    RETURN_IF_ERROR(meter_.advance(size_of(segment_name(segment.id()))));
  }
  return {};
}

/// Nobody says what lives: every segment of rows becomes a collection.
Status StoreRepair::salvage_rootless() {
  Segments segments;
  Dead dead;
  for (const SegmentId id : listing_.segments) {
    const auto head = files_->read_at(dir_ + "/" + segment_name(id), 0, sizeof(SegmentHeader));
    if (!head.has_value() || head->size() < sizeof(SegmentHeader)) continue;
    const auto store_id = read_as<SegmentHeader>(as_bytes_of(*head)).store_id;
    auto file =
        open_segment_file(files_, dir_, store_id, id, std::nullopt, SegmentOpening::kSalvage);
    if (!file.has_value()) {
      findings_.damage(segment_name(id), file.error());
      ++report_.segments_lost;
      continue;
    }
    auto segment = SalvagedSegment::open(*std::move(file));
    if (!segment.has_value()) continue;  // an index
    note_kills(*segment, dead);
    segments.push_back(*std::move(segment));
  }
  for (const SalvagedSegment& segment : segments) {
    if (segment.rows_count() > 0) {
      CollectionOptions options;
      options.dimension = segment.dimension();
      options.id_type = segment.id_type();
      options.strict_finite = false;
      // A number no record has: uids are lsns.
      const CollectionUid uid = UINT64_MAX - segment.id();
      RETURN_IF_ERROR(open_target(uid, "salvaged-" + hex16(segment.id()), options, 0));
      RETURN_IF_ERROR(copy_rows(segment, dead[segment.id()], *salvaged_[uid].target));
    }
    RETURN_IF_ERROR(meter_.advance(size_of(segment_name(segment.id()))));
  }
  return {};
}

Status StoreRepair::copy_rows(const SalvagedSegment& segment, const std::set<uint32_t>& dead,
                              SalvageTarget& target) {
  constexpr uint32_t kRowsPerLook = 4096;  // rows between two looks at whether to stop
  uint32_t lost_since = UINT32_MAX;        // a run of lost rows is one finding
  Status why;
  const auto end_run = [&](uint32_t row) {
    if (lost_since == UINT32_MAX) return;
    report_lost_rows(segment, lost_since, row, why);
    target.lost_rows(row - lost_since);
    lost_since = UINT32_MAX;
  };
  for (uint32_t row = 0; row < segment.rows_count(); ++row) {
    if (row % kRowsPerLook == 0 && !meter_.within(0)) return unavailable("stopped between rows");
    if (dead.contains(row)) {
      end_run(row);
      continue;
    }
    auto point = segment.row(row);
    if (!point.has_value()) {
      if (lost_since == UINT32_MAX) {
        lost_since = row;
        why = point.error();
      }
      continue;
    }
    end_run(row);
    RETURN_IF_ERROR(target.add(*std::move(point)));
  }
  end_run(segment.rows_count());
  return target.flush();
}

void StoreRepair::report_lost_rows(const SalvagedSegment& segment, uint32_t first, uint32_t end,
                                   const Status& why) {
  StoreFinding finding = finding_of(why, dir_, segment_name(segment.id()));
  std::string what = "rows " + std::to_string(first) + " to " + std::to_string(end - 1) + " lost";
  // Rows are in id order: the neighbours' ids bound those that cannot be read.
  const auto name_of = [&](uint32_t row) -> std::string {
    const auto id = segment.id_of(row);
    return id.has_value() ? id->to_string() : "?";
  };
  what += ", ids " + name_of(first) + " to " + name_of(end - 1) + ": ";
  finding.what = what + finding.what;
  findings_.add(std::move(finding));
  report_.rows_lost += end - first;
}

// ---- Log ----------------------------------------------------------------------------------------

void StoreRepair::lost_records(const std::string& name, std::optional<uint64_t> offset, Lsn first,
                               Lsn last, const std::string& why) {
  if (first > last) return;
  findings_.damage(
      name, offset,
      "log records " + std::to_string(first) + " to " + std::to_string(last) + " lost: " + why);
}

Status StoreRepair::salvage_log() {
  std::vector<Lsn> logs = listing_.logs;
  const Lsn start = manifest_.replay_after + 1;
  while (has_root_ && logs.size() > 1 && logs[1] <= start) logs.erase(logs.begin());
  // As at a start, the judge of what is debris of a crash and what damage.
  bool torn = false;
  if (has_root_) {
    torn = scan_log(files_, dir_, manifest_.store_id, listing_.logs, manifest_.replay_after,
                    manifest_.durable_lsn)
               .has_value();
  }
  last_lsn_ = has_root_ ? manifest_.replay_after : (logs.empty() ? 0 : logs.front() - 1);
  for (size_t i = 0; i < logs.size(); ++i) {
    RETURN_IF_ERROR(salvage_log_file(logs[i], i + 1 == logs.size(), torn));
  }
  if (has_root_) {
    lost_records("", std::nullopt, last_lsn_ + 1, manifest_.durable_lsn,
                 "the log ends before them");
  }
  return {};
}

Status StoreRepair::salvage_log_file(Lsn first_lsn, bool last_file, bool torn) {
  const std::string name = log_name(first_lsn);
  lost_records(name, std::nullopt, last_lsn_ + 1, first_lsn - 1, "no file holds them");
  const uint64_t bytes = size_of(name);
  const bool debris = last_file && torn;
  auto reader = has_root_ ? LogReader::open(files_, dir_, manifest_.store_id, first_lsn)
                          : LogReader::open_alone(files_, dir_ + "/" + name);
  if (!reader.has_value() && !debris) {
    findings_.damage(name, reader.error());
    if (has_root_) {
      reader = LogReader::open_headless(files_, dir_, manifest_.store_id, first_lsn);
    }
  }
  if (reader.has_value()) {
    RETURN_IF_ERROR(read_frames(*reader, name, debris));
  } else if (!debris) {
    report_.log_bytes_lost += bytes;
  }
  return meter_.advance(bytes);
}

Status StoreRepair::read_frames(LogReader& reader, const std::string& name, bool debris_at_end) {
  while (true) {
    const auto frame = reader.next();
    if (!frame.has_value()) {
      findings_.damage(name, frame.error());
      return {};
    }
    if (frame->has_value()) {
      const FrameHeader& header = (*frame)->header;
      last_lsn_ = std::max(last_lsn_, header.lsn);
      if (header.type == FrameType::kRecord) RETURN_IF_ERROR(apply(header.lsn, (*frame)->payload));
      if (!meter_.within(reader.offset())) return unavailable("stopped while reading the log");
      continue;
    }
    if (reader.problem().empty()) return {};
    const uint64_t offset = reader.offset();
    const std::string problem = reader.problem();
    if (debris_at_end) {
      findings_.note(name, offset,
                     "torn tail of " + std::to_string(reader.file_bytes() - offset) +
                         " bytes left out, as a start would: " + problem);
      return {};
    }
    const Lsn before = reader.last_lsn();
    const auto found = reader.skip_damage();
    if (!found.has_value()) {
      findings_.damage(name, found.error());
      return {};
    }
    const uint64_t lost = (*found ? reader.offset() : reader.file_bytes()) - offset;
    report_.log_bytes_lost += lost;
    const std::string bytes = std::to_string(lost) + " bytes are unreadable, " + problem;
    if (*found && reader.last_lsn() == before) {
      findings_.damage(name, offset, "log is damaged, no record is lost: " + bytes);
    } else if (*found) {
      lost_records(name, offset, before + 1, reader.last_lsn(), bytes);
    } else {
      findings_.damage(name, offset,
                       "log records from " + std::to_string(before + 1) +
                           " to the end of the file lost: " + bytes);
      return {};
    }
  }
}

/// The collection a record is of. Null: dropped, or unknown and forgotten by a checkpoint.
Salvaged* StoreRepair::find(CollectionUid uid, uint32_t dimension, IdType id_type) {
  const auto found = salvaged_.find(uid);
  if (found != salvaged_.end()) return found->second.dropped ? nullptr : &found->second;
  // With a manifest an unknown collection was dropped. Without one nobody knows.
  if (has_root_ || dimension == 0) return nullptr;
  CollectionOptions options;
  options.dimension = dimension;
  options.id_type = id_type;
  options.strict_finite = false;
  failure_ = open_target(uid, "salvaged-log-" + std::to_string(uid), options, 0);
  return failure_.ok() ? &salvaged_[uid] : nullptr;
}

Status StoreRepair::apply(Lsn lsn, Bytes record) {
  if (has_root_ && lsn <= manifest_.replay_after) return {};
  const auto op = decode_op(record);
  if (!op.has_value()) {
    lost_records("", std::nullopt, lsn, lsn, op.error().message());
    return {};
  }
  ++report_.log_records_kept;
  if (const auto* create = std::get_if<CreateOp>(&*op)) {
    if (salvaged_.contains(lsn)) return {};
    const Status made = open_target(lsn, create->name, create->options, 0);
    if (made.code() != Code::kAlreadyExists) return made;
    // The record that dropped the older one of this name is lost.
    return open_target(lsn, create->name + "-" + std::to_string(lsn), create->options, 0);
  }
  if (const auto* drop = std::get_if<DropOp>(&*op)) {
    Salvaged* const salvaged = find(drop->collection, 0, IdType::kU64);
    if (salvaged == nullptr) return {};
    RETURN_IF_ERROR(salvaged->target->flush());
    salvaged->dropped = true;
    return database_->drop_collection(salvaged->name);
  }
  if (const auto* upsert = std::get_if<UpsertOp>(&*op)) {
    Salvaged* const salvaged = find(upsert->collection, upsert->dimension, upsert->id_type);
    if (salvaged == nullptr || lsn <= salvaged->applied) return failure_;
    if (upsert->dimension != salvaged->options.dimension) {
      lost_records("", std::nullopt, lsn, lsn, "it does not fit its collection");
      return {};
    }
    for (size_t i = 0; i < upsert->ids.size(); ++i) {
      Point point;
      point.id = upsert->ids[i];
      point.values.resize(upsert->dimension);
      std::memcpy(point.values.data(), upsert->row(i), upsert->dimension * sizeof(float));
      point.payload = decode_payload(upsert->payloads[i]);
      RETURN_IF_ERROR(salvaged->target->add(std::move(point)));
    }
    return {};
  }
  if (const auto* remove = std::get_if<RemoveOp>(&*op)) {
    Salvaged* const salvaged = find(remove->collection, 0, IdType::kU64);
    if (salvaged == nullptr || lsn <= salvaged->applied) return {};
    return salvaged->target->remove(remove->ids);
  }
  return {};
}

RepairReport StoreRepair::take() {
  for (const auto& [uid, salvaged] : salvaged_) {
    if (salvaged.dropped) continue;
    RepairedCollection& report = salvaged.target->report();
    report.rows_kept = salvaged.target->collection().info().points_count;
    report_.collections.push_back(report);
  }
  std::sort(report_.collections.begin(), report_.collections.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  report_.losses_count = findings_.damage_count();
  report_.notes_count = findings_.notes_count();
  report_.findings = findings_.take();
  return std::move(report_);
}

DatabaseOptions options_of_copy(const std::string& dir) {
  DatabaseOptions options;
  options.data_dir = dir;
  // The checkpoint at the end makes everything durable, and nothing counts before.
  options.durability.sync_on_write = false;
  options.dimension_max = kDimensionCeiling;
  options.points_per_collection_max = kSegmentRowsMax;
  options.index_warmup_on_boot = false;
  options.search_threads = 1;
  return options;
}

Status require_absent(FileSystem* files, const std::string& dir) {
  const auto names = files->list(dir);
  if (names.has_value() && !names->empty()) {
    return already_exists("directory is not empty: '" + dir + "'");
  }
  if (names.has_value() || names.error().code() == Code::kNotFound) return {};
  return names.error();
}

}  // namespace

Result<RepairReport> repair_store(const std::string& dir, const std::string& out,
                                  const StoreProgress& progress) {
  FileSystem* const files = &posix_file_system();
  ASSIGN_OR_RETURN(const StoreListing listing, list_store(files, dir));
  if (!listing.has_manifest && listing.logs.empty() && listing.segments.empty()) {
    return not_found("there is no store in '" + dir + "'");
  }
  ASSIGN_OR_RETURN(const bool locked, files->is_locked(dir + "/" + std::string(kLockName)));
  if (locked) {
    return Status(Code::kInUse, "a process has the data directory open: '" + dir + "'");
  }
  std::string target = out;
  while (target.size() > 1 && target.back() == '/') target.pop_back();
  RETURN_IF_ERROR(require_absent(files, target));
  const std::string partial = target + std::string(kPartialSuffix);
  RETURN_IF_ERROR(require_absent(files, partial));
  uint64_t total = 0;
  const auto add_size = [&](const std::string& name) {
    const auto size = files->file_size(dir + "/" + name);
    if (size.has_value()) total += *size;
  };
  for (const Lsn first_lsn : listing.logs) add_size(log_name(first_lsn));
  for (const SegmentId id : listing.segments) add_size(segment_name(id));
  RepairReport report;
  {
    ASSIGN_OR_RETURN(const auto database,
                     open_database(options_of_copy(partial), {files, &system_clock_source()}));
    StoreRepair repair(files, dir, listing, database.get(), progress, total);
    RETURN_IF_ERROR(repair.run());
    report = repair.take();
  }
  RETURN_IF_ERROR(files->rename(partial, target));
  RETURN_IF_ERROR(files->sync_dir(parent_of(target)));
  return report;
}

}  // namespace aionbd
