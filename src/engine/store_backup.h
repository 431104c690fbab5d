// Backup and restore over given files: what an open database shares with the calls of
// aionbd/store.h, and what tests use to pass a simulated disk.
#pragma once

#include <string>
#include <vector>

#include "aionbd/store.h"
#include "io/file_system.h"
#include "storage/backup.h"

namespace aionbd {

/// Copies `source`, whose files must not change or go meanwhile. Errors: as backup_store, but for
/// those of finding the source.
Result<BackupReport> copy_to_backup(FileSystem* files, const BackupSource& source,
                                    const std::string& to, const BackupOptions& options,
                                    const StoreProgress& progress);

/// As the calls without "_in" (aionbd/store.h).
Result<BackupReport> backup_store_in(FileSystem* files, const std::string& dir,
                                     const std::string& to, const BackupOptions& options = {},
                                     const StoreProgress& progress = {});
Result<std::vector<BackupReport>> list_store_backups_in(FileSystem* files, const std::string& from);
Result<RestoreReport> restore_store_in(FileSystem* files, const std::string& from,
                                       const std::string& dir, const RestoreOptions& options = {},
                                       const StoreProgress& progress = {});

}  // namespace aionbd
