// The embeddable engine: a directory of collections.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "aionbd/collection.h"
#include "aionbd/metrics.h"
#include "aionbd/options.h"
#include "aionbd/status.h"
#include "aionbd/store.h"

namespace aionbd {

struct Health {
  bool storage_available = true;         // false after a failed sync, until reopened
  std::string reason;                    // empty when all is well
  std::vector<std::string> quarantined;  // collections refused because their files are damaged
};

/// Counters the HTTP contract's JSON metrics are made of.
struct DatabaseTotals {
  uint64_t collections = 0;
  uint64_t points = 0;
};

/// Thread safety: safe. Destroying it refuses new work, waits for work in progress, makes the log
/// durable and releases the directory. Collections handed out earlier answer `unavailable` then.
class Database {
 public:
  /// Opens, and recovers if the last run did not end cleanly.
  /// Errors: in_use (another process has the directory), corruption (manifest or log damaged;
  /// a damaged collection alone is quarantined instead), io_error, invalid_argument (options).
  static Result<std::unique_ptr<Database>> open(DatabaseOptions options);
  virtual ~Database() = default;

  /// Name: 1..kNameCharsMax characters of [A-Za-z0-9._-], not ".", no "..".
  virtual Result<std::shared_ptr<Collection>> create_collection(
      std::string_view name, const CollectionOptions& options, Deadline deadline = kNoDeadline) = 0;
  virtual Status drop_collection(std::string_view name, Deadline deadline = kNoDeadline) = 0;
  virtual Result<std::shared_ptr<Collection>> collection(std::string_view name) const = 0;
  /// Sorted by name.
  virtual std::vector<CollectionInfo> list_collections() const = 0;

  /// Seals what is open and shortens the log to nothing.
  virtual Status checkpoint() = 0;

  /// Adds a backup of this database to the backups in `to`, as backup_store does, while reads and
  /// writes go on: it holds every write acknowledged before the call, and of later ones a prefix in
  /// log order. Writes wait for one sync of the log. Files that become obsolete meanwhile stay to
  /// the end, so disk use may grow by as much as is written. Takes a core while it runs.
  /// Errors: failed_precondition: not persistent, a backup is being made already, or `to` holds
  /// another store's backups; in_use: another process makes a backup there; corruption: a file of
  /// the store or a backup in `to` is damaged; storage_full, io_error; unavailable: stopped by
  /// `progress` or by closing, or writes are refused after a failed sync.
  virtual Result<BackupReport> backup(const std::string& to, const BackupOptions& options = {},
                                      const StoreProgress& progress = {}) = 0;

  /// Counts `bytes` that the caller holds for its requests and answers against the memory budget,
  /// until the last copy of the result is gone. Errors: resource_exhausted.
  virtual Result<AnswerMemory> hold_memory(uint64_t bytes) {
    static_cast<void>(bytes);
    return AnswerMemory();
  }

  virtual Health health() const = 0;
  /// Every engine metric, in table order.
  virtual std::vector<MetricSample> metrics() const = 0;
  /// The engine's metric table.
  static std::vector<const MetricRow*> metric_rows();

  /// Name of the instruction set the distance kernels use, e.g. "avx512".
  static std::string_view simd_target();
  /// Those this CPU can run, the best first: the values that AIONBD_SIMD may have here.
  static std::vector<std::string_view> simd_targets();
};

/// "0.1.0".
std::string_view version();

}  // namespace aionbd
