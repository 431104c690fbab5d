// Backup of a closed store, and restore: where the bytes go is storage's business
// (storage/backup.h), here is what makes a cut of a closed store (Storage::cut makes that of an
// open one), and how a restored store takes its place.
//
// Restore unpacks beside the data directory, verifies the result as `verify` would, and only then
// exchanges the two names: one system call, so that a crash leaves the one or the other.
#include "engine/store_backup.h"

#include <algorithm>

#include "engine/store_verify.h"

namespace aionbd {
namespace {

constexpr std::string_view kRestoringSuffix = ".restoring";
constexpr std::string_view kReplacedSuffix = ".replaced";
/// Directories set aside by earlier restores that were never removed.
constexpr int kReplacedMax = 1000;

std::string without_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

std::string lock_path(const std::string& dir) {
  return dir + "/" + std::string(kLockName);
}

BackupReport report_of(const BackupCounts& counts) {
  return {counts.number,        counts.last_lsn,  counts.files,
          counts.files_shared,  counts.raw_bytes, counts.packed_bytes,
          counts.written_bytes, counts.removed,   counts.removed_bytes};
}

/// What is to be copied of a store nobody has open. The torn tail of a log is left out, as a start
/// would. Errors: corruption.
Result<BackupSource> source_of(FileSystem* files, const std::string& dir,
                               const StoreListing& listing) {
  BackupSource out;
  out.dir = dir;
  ASSIGN_OR_RETURN(out.manifest, read_manifest(files, dir));
  ASSIGN_OR_RETURN(const LogScan scan,
                   scan_log(files, dir, out.manifest.store_id, listing.logs,
                            out.manifest.replay_after, out.manifest.durable_lsn));
  out.logs = scan.files;
  out.logs.back().bytes = scan.end_offset;
  out.last_lsn = scan.last_lsn;
  return out;
}

/// Missing, empty, or in the way. Errors: io_error.
enum class Place : uint8_t { kMissing, kEmpty, kTaken };
Result<Place> look_at(FileSystem* files, const std::string& dir) {
  const auto names = files->list(dir);
  if (names.has_value()) return names->empty() ? Place::kEmpty : Place::kTaken;
  if (names.error().code() == Code::kNotFound) return Place::kMissing;
  return names.error();
}

/// Removes what a restore that was cut short left in `dir`; refuses to remove anything else.
Status clear_leftovers(FileSystem* files, const std::string& dir) {
  auto listing = list_store(files, dir);
  if (!listing.has_value()) {
    return listing.error().code() == Code::kNotFound ? Status() : listing.error();
  }
  if (!listing->foreign.empty()) {
    return already_exists("directory holds files that are not of a restore: '" + dir + "'");
  }
  std::vector<std::string> names = listing->temps;
  for (const Lsn first_lsn : listing->logs) names.push_back(log_name(first_lsn));
  for (const SegmentId id : listing->segments) names.push_back(segment_name(id));
  if (listing->has_manifest) names.emplace_back(kManifestName);
  for (const std::string& name : names) RETURN_IF_ERROR(files->remove(dir + "/" + name));
  const Status lock = files->remove(lock_path(dir));
  return lock.ok() || lock.code() == Code::kNotFound ? Status() : lock;
}

/// The name the old store gets: the first that is free.
Result<std::string> free_name(FileSystem* files, const std::string& dir) {
  for (int i = 1; i <= kReplacedMax; ++i) {
    std::string name = dir + std::string(kReplacedSuffix) + (i == 1 ? "" : std::to_string(i));
    ASSIGN_OR_RETURN(const Place place, look_at(files, name));
    if (place == Place::kMissing) return name;
  }
  return already_exists("too many replaced stores beside '" + dir + "'");
}

/// A whole store where a restore wants to unpack may be the one that an earlier restore took out of
/// the way when it was cut short: it is set aside, too.
Status set_aside_whole_store(FileSystem* files, const std::string& fresh, const std::string& dir) {
  const auto listing = list_store(files, fresh);
  if (!listing.has_value()) {
    return listing.error().code() == Code::kNotFound ? Status() : listing.error();
  }
  if (!listing->has_manifest || !listing->foreign.empty()) return {};
  ASSIGN_OR_RETURN(const std::string aside, free_name(files, dir));
  RETURN_IF_ERROR(files->rename(fresh, aside));
  return files->sync_dir(parent_of(dir));
}

/// Whether what a backup unpacks to fits into `dir`, which may be missing yet. Errors:
/// storage_full; corruption.
Status check_space(FileSystem* files, std::string dir, const Backup& backup) {
  ASSIGN_OR_RETURN(const uint64_t needed, unpacked_bytes(backup));
  Result<uint64_t> free = files->free_bytes(dir);
  while (!free && free.error().code() == Code::kNotFound && parent_of(dir) != dir) {
    dir = parent_of(dir);
    free = files->free_bytes(dir);
  }
  RETURN_IF_ERROR(free.status());
  if (needed <= *free) return {};
  return storage_full("restoring backup " + std::to_string(backup.number) + " needs " +
                      std::to_string(needed) + " bytes, the file system of '" + dir + "' has " +
                      std::to_string(*free) + " free; nothing was restored");
}

Status swap_in(FileSystem* files, const std::string& fresh, const std::string& dir, Place place,
               RestoreReport& report) {
  if (place != Place::kTaken) {
    const Status renamed = files->rename(fresh, dir);
    if (!renamed.ok()) {
      return failed_precondition(renamed.message() + "; if '" + dir +
                                 "' is a mount point, restore into a directory inside it");
    }
    return files->sync_dir(parent_of(dir));
  }
  ASSIGN_OR_RETURN(std::string aside, free_name(files, dir));
  RETURN_IF_ERROR(files->exchange(fresh, dir));
  RETURN_IF_ERROR(files->sync_dir(parent_of(dir)));
  RETURN_IF_ERROR(files->rename(fresh, aside));
  report.set_aside = std::move(aside);
  return files->sync_dir(parent_of(dir));
}

}  // namespace

Result<BackupReport> copy_to_backup(FileSystem* files, const BackupSource& source,
                                    const std::string& to, const BackupOptions& options,
                                    const StoreProgress& progress) {
  uint64_t total = 0;
  for (const ManifestSegment& segment : source.manifest.segments) total += segment.file_bytes;
  for (const LogFile& log : source.logs) total += log.bytes;
  const CopyProgress copied = [&](uint64_t done) { return !progress || progress(done, total); };
  ASSIGN_OR_RETURN(const BackupCounts counts, write_backup(files, source, without_slashes(to),
                                                           options.level, options.keep, copied));
  return report_of(counts);
}

Result<BackupReport> backup_store_in(FileSystem* files, const std::string& dir,
                                     const std::string& to, const BackupOptions& options,
                                     const StoreProgress& progress) {
  ASSIGN_OR_RETURN(const StoreListing listing, list_store(files, dir));
  if (!listing.has_manifest) return not_found("there is no store in '" + dir + "'");
  ASSIGN_OR_RETURN(const auto lock, files->lock(lock_path(dir)));
  // Listed again: a server may have been there until a moment ago.
  ASSIGN_OR_RETURN(const StoreListing locked, list_store(files, dir));
  ASSIGN_OR_RETURN(const BackupSource source, source_of(files, dir, locked));
  return copy_to_backup(files, source, to, options, progress);
}

Result<std::vector<BackupReport>> list_store_backups_in(FileSystem* files,
                                                        const std::string& from) {
  ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers, list_backups(files, from));
  std::vector<BackupReport> out;
  for (const uint64_t number : numbers) {
    ASSIGN_OR_RETURN(const Backup backup, read_backup(files, from, number));
    BackupReport report;
    report.number = number;
    report.last_lsn = backup.last_lsn;
    report.files = backup.files.size();
    for (const BackupFile& file : backup.files) {
      report.raw_bytes += file.raw_bytes;
      report.packed_bytes += file.packed_bytes;
    }
    out.push_back(report);
  }
  return out;
}

Result<RestoreReport> restore_store_in(FileSystem* files, const std::string& from,
                                       const std::string& dir, const RestoreOptions& options,
                                       const StoreProgress& progress) {
  const std::string target = without_slashes(dir);
  ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers, list_backups(files, from));
  if (numbers.empty()) return not_found("there is no backup in '" + from + "'");
  ASSIGN_OR_RETURN(const Backup backup,
                   read_backup(files, from, options.number.value_or(numbers.back())));
  ASSIGN_OR_RETURN(const Place place, look_at(files, target));
  std::unique_ptr<FileLock> lock;
  if (place == Place::kTaken) {
    if (!options.replace) {
      return already_exists("directory is not empty: '" + target + "'; --replace sets it aside");
    }
    ASSIGN_OR_RETURN(lock, files->lock(lock_path(target)));
  }
  const std::string fresh = target + std::string(kRestoringSuffix);
  RETURN_IF_ERROR(set_aside_whole_store(files, fresh, target));
  RETURN_IF_ERROR(clear_leftovers(files, fresh));
  RETURN_IF_ERROR(check_space(files, parent_of(target), backup));
  RETURN_IF_ERROR(files->make_dirs(fresh));
  RestoreReport report;
  report.number = backup.number;
  for (const BackupFile& file : backup.files) report.bytes += file.raw_bytes;
  const CopyProgress copied = [&](uint64_t done) {
    return !progress || progress(done, report.bytes);
  };
  Status done = unpack_backup(files, from, backup, fresh, copied);
  if (done.ok()) {
    const auto verified = verify_store_in(files, fresh, progress);
    if (!verified.has_value()) {
      done = verified.error();
    } else if (!verified->clean()) {
      const StoreFinding& first = *std::find_if(
          verified->findings.begin(), verified->findings.end(),
          [](const StoreFinding& finding) { return finding.kind == FindingKind::kDamage; });
      done = corruption("backup holds a damaged store: " + first.file + ": " + first.what);
    }
  }
  if (!done.ok()) {
    static_cast<void>(clear_leftovers(files, fresh));  // the disk may be full of it
    return done;
  }
  RETURN_IF_ERROR(swap_in(files, fresh, target, place, report));
  return report;
}

Result<BackupReport> backup_store(const std::string& dir, const std::string& to,
                                  const BackupOptions& options, const StoreProgress& progress) {
  return backup_store_in(&posix_file_system(), dir, to, options, progress);
}

Result<std::vector<BackupReport>> list_store_backups(const std::string& from) {
  return list_store_backups_in(&posix_file_system(), from);
}

Result<RestoreReport> restore_store(const std::string& from, const std::string& dir,
                                    const RestoreOptions& options, const StoreProgress& progress) {
  return restore_store_in(&posix_file_system(), from, dir, options, progress);
}

}  // namespace aionbd
