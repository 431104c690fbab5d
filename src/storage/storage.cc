// Ties log, segment files and manifest together: first start, recovery, publishing, garbage.
//
// The order everywhere: what is new is durable before the manifest names it, the manifest is
// durable before what it no longer names is removed. A crash at any call leaves the old root or the
// new one, and leftovers that the next open recognises by name.
#include "storage/storage.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/memory_guard.h"
#include "base/mutex.h"
#include "base/rng.h"
#include "storage/backup.h"
#include "storage/format.h"
#include "storage/memory_storage.h"
#include "storage/space_reserve.h"
#include "storage/store_files.h"
#include "storage/wal.h"

namespace aionbd {
namespace {

/// Foreign names reported one by one; the rest are counted.
constexpr size_t kForeignNamesMax = 8;

SpaceReserveOptions reserve_options(const StorageOptions& options) {
  return {options.files, options.clock, options.dir + "/" + std::string(kReserveName),
          options.reserve_bytes, options.logger};
}

class FileStorage final : public Storage {
 public:
  explicit FileStorage(StorageOptions options)
      : options_(std::move(options)), reserve_(reserve_options(options_)) {}

  /// Call once, before anything else.
  Status start();

  ~FileStorage() override {
    wal_.reset();  // before the lock is given up
  }

  std::string_view catalog() const override { return opened_.catalog; }
  Lsn replay_after() const override { return opened_.replay_after; }

  Status replay(const std::function<Status(Lsn, Bytes)>& apply) override {
    return replay_log(options_.files, options_.dir, store_id_, scan_, apply);
  }

  Result<Ticket> append(std::string record, uint64_t generation, RecordEffect effect) override {
    return wal_->append(std::move(record), generation, effect);
  }
  uint64_t generation() const override { return wal_->generation(); }
  Status commit(const Ticket& ticket, Lsn* committed_through) override {
    return wal_->commit(ticket, committed_through);
  }
  Status sync() override { return wal_->sync(); }
  Lsn committed_lsn() const override { return wal_->committed_lsn(); }
  Lsn last_lsn() const override { return wal_->last_lsn(); }
  Result<Lsn> rotate_log() override { return wal_->rotate(); }

  Result<std::unique_ptr<SegmentWriter>> new_segment(SegmentId id,
                                                     uint64_t bytes_expected) override;
  Result<std::shared_ptr<SegmentFile>> open_segment(SegmentId id) override;
  Status publish(std::string catalog, const std::vector<SegmentId>& live,
                 Lsn replay_after) override;
  Result<std::shared_ptr<const BackupSource>> cut() override;

  Status admit_growth() override { return reserve_.admit_growth(); }
  std::unique_ptr<ReserveUse> use_reserve() override {
    if (!reserve_.configured() || !wal_->health().ok()) return nullptr;
    return std::make_unique<Use>(*this);
  }
  uint64_t reserve_held_bytes() const override { return reserve_.held_bytes(); }
  uint64_t reserve_uses() const override { return reserve_.given_count().value(); }

  uint64_t map_failures() const override { return options_.files->map_failures(); }
  Status health() const override { return wal_->health(); }
  const StorageMetrics& metrics() const override { return metrics_; }
  bool persistent() const override { return true; }

 private:
  class Use final : public ReserveUse {
   public:
    explicit Use(FileStorage& storage) : storage_(storage) {
      storage_.reserve_.refuse_growth();
      // Records that add and are queued already get what space there is without it.
      storage_.wal_->write_queued();
      storage_.reserve_.give();
    }
    ~Use() override { storage_.reserve_.end_use(); }  // does not throw
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    FileStorage& storage_;
  };

  /// A finished file that no manifest names yet.
  struct Fresh {
    SegmentStamp stamp;
    std::weak_ptr<SegmentFile> file;  // expired: nobody can publish it any more
  };

  /// Keeps the files it names while it lives. Thread safety: immutable.
  class Cut {
   public:
    Cut(FileStorage& storage, BackupSource source);
    ~Cut();
    Cut(const Cut&) = delete;
    Cut& operator=(const Cut&) = delete;

    const BackupSource source;

   private:
    FileStorage& storage_;
  };

  std::string path_of(std::string_view name) const {
    return options_.dir + "/" + std::string(name);
  }
  Status first_start(const StoreListing& listing);
  void remove_leftovers(const StoreListing& listing);
  bool remove_file(const std::string& name);
  void collect_garbage();
  Result<Manifest> next_manifest(std::string catalog, std::vector<SegmentId> live,
                                 Lsn replay_after) const;

  const StorageOptions options_;
  StorageMetrics metrics_;
  SpaceReserve reserve_;
  std::unique_ptr<FileLock> lock_;
  // Constant after start.
  uint64_t store_id_ = 0;
  Manifest opened_;
  LogScan scan_;
  std::unique_ptr<Wal> wal_;
  // The publisher's alone.
  uint64_t manifest_number_ = 0;

  mutable Mutex mutex_;
  /// Held while files are removed, and while one is made. Before mutex_ in the lock order.
  Mutex removal_mutex_;
  std::map<SegmentId, SegmentStamp> live_ GUARDED_BY(mutex_);
  std::map<SegmentId, Fresh> fresh_ GUARDED_BY(mutex_);
  std::set<SegmentId> writing_ GUARDED_BY(mutex_);         // ids given to writers, finished or not
  std::set<std::string> garbage_ GUARDED_BY(mutex_);       // names to remove
  Lsn replay_after_ GUARDED_BY(mutex_) = 0;                // of the current root
  std::set<const BackupSource*> cuts_ GUARDED_BY(mutex_);  // whose files must stay
};

// ---- Opening -----------------------------------------------------------------------------------

Status FileStorage::start() {
  FileSystem* files = options_.files;
  RETURN_IF_ERROR(files->make_dirs(options_.dir));
  ASSIGN_OR_RETURN(lock_, files->lock(path_of(kLockName)));
  ASSIGN_OR_RETURN(StoreListing listing, list_store(files, options_.dir));
  if (!listing.has_manifest) {
    RETURN_IF_ERROR(first_start(listing));
    ASSIGN_OR_RETURN(listing, list_store(files, options_.dir));
  }
  ASSIGN_OR_RETURN(opened_, read_manifest(files, options_.dir));
  store_id_ = opened_.store_id;
  manifest_number_ = opened_.number;
  ASSIGN_OR_RETURN(scan_, scan_log(files, options_.dir, store_id_, listing.logs,
                                   opened_.replay_after, opened_.durable_lsn));
  // What a crash left unsynced in the directory (a rename, say) must be settled before anything is
  // removed that would be needed if it were undone.
  RETURN_IF_ERROR(files->sync_dir(options_.dir));
  WalOptions wal;
  wal.files = files;
  wal.clock = options_.clock;
  wal.metrics = &metrics_;
  wal.logger = options_.logger;
  wal.dir = options_.dir;
  wal.store_id = store_id_;
  wal.durability = options_.durability;
  wal.group_commit_batch_max = options_.group_commit_batch_max;
  wal.group_commit_delay = options_.group_commit_delay;
  wal.reserve = &reserve_;
  ASSIGN_OR_RETURN(wal_, Wal::open(std::move(wal), scan_));
  {
    MutexLock lock(mutex_);
    replay_after_ = opened_.replay_after;
    for (const ManifestSegment& segment : opened_.segments) {
      live_[segment.id] = {segment.file_bytes, segment.trailer_checksum};
    }
  }
  remove_leftovers(listing);
  reserve_.start();
  return Status();
}

/// Makes an empty store, or finishes making one. The store exists once its manifest is durable.
Status FileStorage::first_start(const StoreListing& listing) {
  FileSystem* files = options_.files;
  const bool debris =
      listing.segments.empty() && (listing.logs.empty() || listing.logs == std::vector<Lsn>{1});
  uint64_t log_bytes = 0;
  if (debris && !listing.logs.empty()) {
    ASSIGN_OR_RETURN(log_bytes, files->file_size(path_of(log_name(1))));
  }
  if (!debris || log_bytes > sizeof(LogHeader)) {
    return corruption("manifest is missing: '" + path_of(kManifestName) +
                      "' is not there, but log or segment files are");
  }
  const Status parent = files->sync_dir(parent_of(options_.dir));
  if (!parent.ok()) {
    // A parent we may not open is not ours to sync; the directory was there before us, or
    // make_dirs has synced it.
    options_.logger.warning("storage: parent of the data directory not synced why=" +
                            parent.message());
  }
  Manifest manifest;
  manifest.store_id = entropy_seed();
  manifest.number = 1;
  bool sync_failed = false;
  RETURN_IF_ERROR(create_log_file(files, options_.dir, manifest.store_id, 1,
                                  next_epoch(0, entropy_seed()), &sync_failed)
                      .status());
  ManifestStep step;
  return write_manifest(files, options_.dir, manifest, &step);
}

/// Puts what the manifest does not need on the garbage list and removes it.
void FileStorage::remove_leftovers(const StoreListing& listing) {
  {
    MutexLock lock(mutex_);
    garbage_.insert(listing.temps.begin(), listing.temps.end());
    for (const Lsn first_lsn : listing.logs) {
      if (first_lsn < scan_.files.front().first_lsn) garbage_.insert(log_name(first_lsn));
    }
    for (const SegmentId id : listing.segments) {
      if (!live_.contains(id)) garbage_.insert(segment_name(id));
    }
  }
  for (size_t i = 0; i < listing.foreign.size(); ++i) {
    if (i == kForeignNamesMax) {
      options_.logger.warning("storage: more foreign files count=" +
                              std::to_string(listing.foreign.size() - i));
      break;
    }
    options_.logger.warning("storage: foreign file left alone name=" + listing.foreign[i]);
  }
  collect_garbage();
}

// ---- Garbage -----------------------------------------------------------------------------------

/// True when the file is gone.
bool FileStorage::remove_file(const std::string& name) {
  const Status removed = options_.files->remove(path_of(name));
  if (removed.ok() || removed.code() == Code::kNotFound) return true;
  options_.logger.warning("storage: file not removed, will be tried again why=" +
                          removed.message());
  return false;
}

void FileStorage::collect_garbage() {
  MutexLock removal(removal_mutex_);
  std::set<std::string> names;
  Lsn logs_after = 0;
  {
    MutexLock lock(mutex_);
    std::erase_if(fresh_, [&](const auto& entry) REQUIRES(mutex_) {
      if (!entry.second.file.expired()) return false;
      garbage_.insert(segment_name(entry.first));
      return true;
    });
    names.swap(garbage_);
    logs_after = replay_after_;
    for (const BackupSource* cut : cuts_) {
      logs_after = std::min(logs_after, cut->manifest.replay_after);
      for (const ManifestSegment& segment : cut->manifest.segments) {
        // It becomes garbage again when the cut ends.
        if (auto kept = names.extract(segment_name(segment.id))) garbage_.insert(std::move(kept));
      }
    }
  }
  wal_->remove_obsolete(logs_after);
  std::erase_if(names, [this](const std::string& name) { return remove_file(name); });
  MutexLock lock(mutex_);
  garbage_.merge(names);
}

// ---- Segments ----------------------------------------------------------------------------------

Result<std::unique_ptr<SegmentWriter>> FileStorage::new_segment(SegmentId id,
                                                                uint64_t bytes_expected) {
  RETURN_IF_ERROR(health());
  collect_garbage();  // space for the new one, even while publishing keeps failing
  // A leftover of the same name must not be on its way out when the new file is made.
  MutexLock removal(removal_mutex_);
  {
    MutexLock lock(mutex_);
    if (live_.contains(id) || !writing_.insert(id).second) {
      return already_exists("segment id was used before: " + std::to_string(id));
    }
    garbage_.erase(segment_name(id));  // a leftover of the same name is overwritten
  }
  return create_segment_file(
      options_.files, options_.dir, store_id_, id,
      [this](const std::shared_ptr<SegmentFile>& file) {
        const SegmentStamp stamp{file->file_bytes(), file->trailer_checksum()};
        MutexLock lock(mutex_);
        fresh_[file->id()] = {stamp, file};
      },
      bytes_expected);
}

Result<std::shared_ptr<SegmentFile>> FileStorage::open_segment(SegmentId id) {
  SegmentStamp stamp;
  {
    MutexLock lock(mutex_);
    const auto live = live_.find(id);
    if (live == live_.end()) {
      const auto fresh = fresh_.find(id);
      std::shared_ptr<SegmentFile> file =
          fresh == fresh_.end() ? nullptr : fresh->second.file.lock();
      if (file == nullptr) return not_found("no such segment: " + std::to_string(id));
      return file;
    }
    stamp = live->second;
  }
  auto opened = open_segment_file(options_.files, options_.dir, store_id_, id, stamp);
  if (!opened.has_value() && opened.error().code() == Code::kNotFound) {
    return corruption("segment is missing: '" + path_of(segment_name(id)) +
                      "' is in the manifest, but not in the directory");
  }
  return opened;
}

// ---- Publishing --------------------------------------------------------------------------------

Result<Manifest> FileStorage::next_manifest(std::string catalog, std::vector<SegmentId> live,
                                            Lsn replay_after) const {
  Manifest manifest;
  manifest.store_id = store_id_;
  manifest.number = manifest_number_ + 1;
  manifest.replay_after = replay_after;
  manifest.durable_lsn = wal_->durable_lsn();
  manifest.catalog = std::move(catalog);
  std::sort(live.begin(), live.end());
  live.erase(std::unique(live.begin(), live.end()), live.end());
  MutexLock lock(mutex_);
  for (const SegmentId id : live) {
    SegmentStamp stamp;
    if (const auto old = live_.find(id); old != live_.end()) {
      stamp = old->second;
    } else if (const auto fresh = fresh_.find(id); fresh != fresh_.end()) {
      stamp = fresh->second.stamp;
    } else {
      return internal_error("segment to publish was never finished: " + std::to_string(id));
    }
    manifest.segments.push_back({id, stamp.file_bytes, stamp.trailer_checksum});
  }
  return manifest;
}

Status FileStorage::publish(std::string catalog, const std::vector<SegmentId>& live,
                            Lsn replay_after) {
  RETURN_IF_ERROR(health());
  if (replay_after > wal_->durable_lsn()) RETURN_IF_ERROR(wal_->sync());
  if (replay_after > wal_->durable_lsn()) {
    return internal_error("publish of a log position that was never reached: lsn " +
                          std::to_string(replay_after));
  }
  ASSIGN_OR_RETURN(const Manifest manifest, next_manifest(std::move(catalog), live, replay_after));
  const Status names = options_.files->sync_dir(options_.dir);
  if (!names.ok()) {
    wal_->fail_stop(names);
    return health();
  }
  // What needs memory comes before the manifest: afterwards it must be followed.
  const std::string temp = std::string(kManifestName) + std::string(kTempSuffix);
  std::map<SegmentId, SegmentStamp> next;
  for (const ManifestSegment& segment : manifest.segments) {
    next[segment.id] = {segment.file_bytes, segment.trailer_checksum};
  }
  std::set<std::string> dropped;
  {
    MutexLock lock(mutex_);
    for (const auto& [id, stamp] : live_) {
      if (!next.contains(id)) dropped.insert(segment_name(id));
    }
  }
  ManifestStep step = ManifestStep::kOldIsRoot;
  const Status written =
      within_memory([&] { return write_manifest(options_.files, options_.dir, manifest, &step); });
  if (step == ManifestStep::kUnknown) {
    wal_->fail_stop(written);
    return health();
  }
  if (!written.ok()) {
    MutexLock lock(mutex_);
    garbage_.insert(temp);
    return written;
  }
  ++manifest_number_;
  {
    MutexLock lock(mutex_);
    for (const ManifestSegment& segment : manifest.segments) fresh_.erase(segment.id);
    live_.swap(next);
    garbage_.merge(dropped);
    garbage_.erase(temp);
    replay_after_ = replay_after;
  }
  // What stays is removed by the next publish.
  as_memory_allows([&] { collect_garbage(); });
  return Status();
}

// ---- Cuts --------------------------------------------------------------------------------------

FileStorage::Cut::Cut(FileStorage& storage, BackupSource source_files)
    : source(std::move(source_files)), storage_(storage) {
  MutexLock lock(storage_.mutex_);
  storage_.cuts_.insert(&source);
}

FileStorage::Cut::~Cut() {
  {
    MutexLock lock(storage_.mutex_);
    storage_.cuts_.erase(&source);
  }
  storage_.collect_garbage();
}

Result<std::shared_ptr<const BackupSource>> FileStorage::cut() {
  ASSIGN_OR_RETURN(LogCut log, wal_->cut());
  BackupSource source;
  source.dir = options_.dir;
  ASSIGN_OR_RETURN(source.manifest, read_manifest(options_.files, options_.dir));
  // An older file that could not be removed yet is no part of it.
  while (log.files.size() > 1 && log.files[1].first_lsn <= source.manifest.replay_after + 1) {
    log.files.erase(log.files.begin());
  }
  source.logs = std::move(log.files);
  source.last_lsn = log.last_lsn;
  const auto cut = std::make_shared<const Cut>(*this, std::move(source));
  return std::shared_ptr<const BackupSource>(cut, &cut->source);
}

}  // namespace

Result<std::unique_ptr<Storage>> Storage::open(StorageOptions options) {
  if (!options.persistent) return make_memory_storage();
  CHECK_TRUE(options.files != nullptr && options.clock != nullptr);
  auto storage = std::make_unique<FileStorage>(std::move(options));
  RETURN_IF_ERROR(storage->start());
  return std::unique_ptr<Storage>(std::move(storage));
}

}  // namespace aionbd
