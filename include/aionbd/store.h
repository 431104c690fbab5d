// What an operator does with a store that nobody serves: verify, describe, repair; and with its
// backups. None of these calls opens the database.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "aionbd/status.h"
#include "aionbd/types.h"

namespace aionbd {

// ---- Findings -----------------------------------------------------------------------------------

enum class FindingKind : uint8_t {
  kDamage,  // something that was stored cannot be read, or does not mean what it should
  kNote,    // worth knowing; nothing is lost
};

/// One thing found in a store.
struct StoreFinding {
  FindingKind kind = FindingKind::kDamage;
  std::string file;                // name in the directory; empty: the store as a whole
  std::optional<uint64_t> offset;  // in that file
  std::string what;
};

/// Findings kept one by one; the rest are counted, so that a ruined store cannot fill the memory.
inline constexpr size_t kFindingsMax = 1000;

/// Told now and then how many of how many bytes were looked at; false stops the call, which then
/// answers `unavailable`.
using StoreProgress = std::function<bool(uint64_t bytes_done, uint64_t bytes_total)>;

// ---- Verify -------------------------------------------------------------------------------------

struct VerifyReport {
  std::vector<StoreFinding> findings;  // at most kFindingsMax
  uint64_t damage_count = 0;           // all of them
  uint64_t notes_count = 0;
  uint64_t files = 0;  // looked at
  uint64_t bytes = 0;
  uint64_t collections = 0;
  uint64_t segments = 0;  // of rows
  uint64_t indexes = 0;
  uint64_t rows = 0;  // in segments, live and dead
  uint64_t rows_live = 0;
  uint64_t log_files = 0;
  uint64_t log_records = 0;  // in the log, whether or not a start would replay them

  bool clean() const { return damage_count == 0; }
};

/// Checks every file of the store in `dir`: every checksum, every structure, and that the files fit
/// each other. Changes nothing, locks nothing; holds one file mapped at a time, and 48 bytes per
/// live row of one collection.
/// Errors: not_found (no such directory, or no store in it); in_use (a process has the store open,
/// or had while this call looked: what it found would mean nothing); unavailable (stopped).
/// What is wrong with the store is no error of this call, but in the report.
Result<VerifyReport> verify_store(const std::string& dir, const StoreProgress& progress = {});

// ---- Repair -------------------------------------------------------------------------------------

/// A collection of the salvaged copy.
struct RepairedCollection {
  std::string name;
  uint64_t rows_kept = 0;
  uint64_t rows_lost = 0;  // in damaged blocks; some may have been replaced or deleted since
};

struct RepairReport {
  std::vector<RepairedCollection> collections;
  std::vector<StoreFinding> findings;  // at most kFindingsMax
  uint64_t losses_count = 0;           // findings of damage, all of them
  uint64_t notes_count = 0;
  uint64_t rows_lost = 0;      // that are known to have been there
  uint64_t segments_lost = 0;  // files of rows of which nothing could be read
  uint64_t log_records_kept = 0;
  uint64_t log_bytes_lost = 0;

  bool complete() const { return losses_count == 0; }
};

/// Makes a new store in `out` of all rows of the store in `dir` whose checksums hold, row by row,
/// and of all whole log records, also those behind a damaged place. `dir` is only read. Indexes are
/// not copied: the server builds them again. Without a manifest each segment becomes a collection
/// "salvaged-<segment id>", because nothing says whose it was.
/// `out` appears when it is complete, and must not exist or be empty.
/// Errors: not_found, in_use, unavailable as verify_store; already_exists; storage_full, io_error
/// of writing. Losses are no error of this call, but in the report.
Result<RepairReport> repair_store(const std::string& dir, const std::string& out,
                                  const StoreProgress& progress = {});

// ---- Backup and restore -------------------------------------------------------------------------

struct BackupReport {
  uint64_t number = 0;    // of the backup in its directory: 1, 2, 3, ...
  uint64_t last_lsn = 0;  // the last record in it
  uint64_t files = 0;
  uint64_t files_shared = 0;   // stored by an earlier backup in the same place
  uint64_t raw_bytes = 0;      // of the files in the store
  uint64_t packed_bytes = 0;   // of the files in the backup
  uint64_t written_bytes = 0;  // by this call
  uint64_t removed = 0;        // older backups, by this call
  uint64_t removed_bytes = 0;  // of files that no backup needs any more
};

/// zstd's own default is 3; above, vectors gain nothing and take longer.
inline constexpr int kBackupLevelDefault = 3;

struct BackupOptions {
  int level = kBackupLevelDefault;  // of zstd, 1..19
  uint64_t keep = 0;                // so many of the newest, this one included, stay; 0: all
};

/// Adds a backup of the closed store in `dir` to the backups in `to`, which is made if missing.
/// Segment files an earlier backup stored are not stored again. Holds the store's lock meanwhile.
/// Once it is complete, backups beyond `keep` are removed, and what no backup that stays needs. A
/// crash at any point leaves the backups that were there, without some that were to be removed.
/// Errors: in_use (of the store, or another backup runs); not_found; corruption: the store is
/// damaged (verify it; what is damaged is not backed up), or a backup in `to` is;
/// failed_precondition: `to` holds another store's backups; storage_full, io_error; unavailable.
Result<BackupReport> backup_store(const std::string& dir, const std::string& to,
                                  const BackupOptions& options = {},
                                  const StoreProgress& progress = {});

/// The backups in a directory, oldest first. Errors: not_found, corruption, io_error.
Result<std::vector<BackupReport>> list_store_backups(const std::string& from);

struct RestoreOptions {
  std::optional<uint64_t> number;  // unset: the newest
  bool replace = false;            // a store in `dir` is set aside
};

struct RestoreReport {
  uint64_t number = 0;
  uint64_t bytes = 0;
  std::string set_aside;  // where the store that was in `dir` is now; empty: there was none
};

/// Makes `dir` the store that a backup holds. The whole backup is unpacked and verified beside
/// `dir` first, then takes its place in one step: a crash leaves what was there or the restored
/// store. Errors: not_found; corruption: the backup is damaged or hostile; already_exists: `dir` is
/// not empty and `replace` is off; in_use; failed_precondition: the file system cannot exchange
/// directories, or `dir` is a mount point; storage_full: before anything is written, if the file
/// system has fewer bytes free than the backup unpacks to; io_error; unavailable.
Result<RestoreReport> restore_store(const std::string& from, const std::string& dir,
                                    const RestoreOptions& options = {},
                                    const StoreProgress& progress = {});

// ---- Describe -----------------------------------------------------------------------------------

/// A named value of a file: a number, a flag, a text, or a list of texts.
struct FileField {
  std::string_view name;
  Value value;
};

/// Receives what a file holds, in the order of the file, as it is read. A part is one object
/// ("header") or a list of them ("frames"), which may be long.
class FileVisitor {
 public:
  virtual ~FileVisitor() = default;
  virtual void object(std::string_view part, std::span<const FileField> fields) = 0;
  virtual void begin_list(std::string_view part) = 0;
  virtual void item(std::span<const FileField> fields) = 0;
  virtual void end_list() = 0;
};

/// Shows the structure of any file of a store: manifest, log, segment, index. The kind is found by
/// content, not by name. What can be shown is shown before an error is returned. Holds one record
/// or one manifest in memory. Changes nothing; a file that a server writes meanwhile may look torn.
/// Errors: not_found; io_error; corruption: damaged, or no file of a store.
Status describe_file(const std::string& path, FileVisitor& visitor);

}  // namespace aionbd
