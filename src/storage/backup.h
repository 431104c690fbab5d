// Backups: a consistent cut of a store, copied to another directory, and back.
//
// A backup directory holds any number of backups of one store. Segment files never change and never
// share a name, so each is stored once, whichever backups need it; logs and the manifest are each
// backup's own. Everything is packed in chunks with checksums. A backup exists from the moment its
// own manifest has its name, which comes last. Layout: docs/format.md, "Backup".
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "aionbd/status.h"
#include "io/file_system.h"
#include "storage/store_files.h"

namespace aionbd {

/// Bytes of a file that are packed and checksummed together: what packing and unpacking hold.
inline constexpr uint64_t kBackupChunkBytes = uint64_t{1} << 20;

struct BackupHeader {
  uint64_t magic = magic_of("AIONBAK\n");
  uint32_t version = kFormatVersion;
  uint32_t reserved = 0;
  uint64_t store_id = 0;
  uint64_t number = 0;  // 1, 2, 3, ... in one directory
  uint64_t files_count = 0;
  uint64_t manifest_bytes = 0;  // of the store, as it lies in its directory
  uint64_t last_lsn = 0;        // the cut: the last record in it
  uint64_t reserved2 = 0;
};
static_assert(sizeof(BackupHeader) == 64);

/// What a stored file is. Persistent, never renumber.
enum class BackupKind : uint32_t { kSegment = 1, kLog = 2 };

struct BackupFile {
  BackupKind kind = BackupKind::kSegment;
  uint32_t reserved = 0;
  uint64_t id = 0;  // segment id, or first lsn
  uint64_t raw_bytes = 0;
  uint64_t packed_bytes = 0;
  uint64_t checksum = 0;  // of the last chunk, whose seed is that of the one before, and so on
};
static_assert(sizeof(BackupFile) == 40);

/// A chunk of a packed file, before its bytes.
struct BackupChunk {
  uint32_t raw_bytes = 0;
  uint32_t packed_bytes = 0;
  uint64_t checksum = 0;  // of the raw bytes
};
static_assert(sizeof(BackupChunk) == 16);

/// One backup. Thread safety: compatible.
struct Backup {
  uint64_t number = 0;
  uint64_t last_lsn = 0;
  Manifest manifest;  // the store's
  std::vector<BackupFile> files;
};

/// What is to be copied. Its files must not change or go while it is.
struct BackupSource {
  std::string dir;
  Manifest manifest;
  std::vector<LogFile> logs;  // bytes: up to the cut
  uint64_t last_lsn = 0;
};

struct BackupCounts {
  uint64_t number = 0;
  uint64_t last_lsn = 0;
  uint64_t files = 0;
  uint64_t files_shared = 0;  // stored by an earlier backup
  uint64_t raw_bytes = 0;
  uint64_t packed_bytes = 0;   // of all its files
  uint64_t written_bytes = 0;  // by this backup
  uint64_t removed = 0;        // older backups
  uint64_t removed_bytes = 0;  // of files that no backup names
};

/// Told after each chunk how many bytes of the store are done; false stops with unavailable.
using CopyProgress = std::function<bool(uint64_t bytes)>;

/// Numbers of the backups in `dir`, ascending. Errors: not_found, io_error.
Result<std::vector<uint64_t>> list_backups(FileSystem* files, const std::string& dir);

/// Errors: not_found; corruption; io_error.
Result<Backup> read_backup(FileSystem* files, const std::string& dir, uint64_t number);

/// Adds a backup to `dir`, which is made if missing. Every segment is verified as it is copied:
/// what is damaged is not backed up. A crash leaves the backups that were there, and files the next
/// backup replaces. `level`: of zstd, 1..19. Then all but the newest `keep` are removed (0: none):
/// first their manifests, durably, then every file that no manifest names any more, those of
/// backups that were cut short among them. A crash leaves every backup whose manifest is there
/// whole. Errors: corruption (of the source, or `dir` holds another store's backups); in_use
/// (another backup is being made there); storage_full, io_error; unavailable.
Result<BackupCounts> write_backup(FileSystem* files, const BackupSource& source,
                                  const std::string& dir, int level, uint64_t keep,
                                  const CopyProgress& progress);

/// Bytes that unpack_backup writes. Errors: corruption: its sizes are impossible.
Result<uint64_t> unpacked_bytes(const Backup& backup);

/// Writes the files of a backup into `out`, an existing directory, the manifest last, and syncs
/// everything. Each byte is verified before it is written.
/// Errors: corruption: the backup is damaged or lies; storage_full, io_error; unavailable.
Status unpack_backup(FileSystem* files, const std::string& dir, const Backup& backup,
                     const std::string& out, const CopyProgress& progress);

}  // namespace aionbd
