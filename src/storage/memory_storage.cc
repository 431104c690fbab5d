#include "storage/memory_storage.h"

#include <map>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"

namespace aionbd {
namespace {

/// Thread safety: safe.
class MemoryStorage final : public Storage {
 public:
  std::string_view catalog() const override { return {}; }
  Lsn replay_after() const override { return 0; }
  Status replay(const std::function<Status(Lsn, Bytes)>&) override { return Status(); }

  Result<Ticket> append(std::string record, uint64_t generation, RecordEffect) override {
    CHECK_LE(record.size(), kRecordBytesMax);
    if (generation != kGeneration) return failed_precondition("log has no such generation");
    MutexLock lock(mutex_);
    return Ticket{++last_lsn_, kGeneration};
  }
  uint64_t generation() const override { return kGeneration; }
  Status commit(const Ticket& ticket, Lsn* committed_through) override {
    if (committed_through != nullptr) *committed_through = ticket.lsn;
    return Status();
  }
  Status sync() override { return Status(); }
  Lsn committed_lsn() const override { return last_lsn(); }
  Lsn last_lsn() const override {
    MutexLock lock(mutex_);
    return last_lsn_;
  }

  Result<Lsn> rotate_log() override { return last_lsn(); }

  Result<std::unique_ptr<SegmentWriter>> new_segment(SegmentId id, uint64_t) override {
    {
      MutexLock lock(mutex_);
      if (!ids_.insert(id).second) {
        return already_exists("segment id was used before: " + std::to_string(id));
      }
    }
    return create_segment_on_heap(id, [this](const std::shared_ptr<SegmentFile>& file) {
      MutexLock lock(mutex_);
      fresh_[file->id()] = file;
    });
  }

  Result<std::shared_ptr<SegmentFile>> open_segment(SegmentId id) override {
    MutexLock lock(mutex_);
    const auto live = live_.find(id);
    if (live != live_.end()) return live->second;
    const auto fresh = fresh_.find(id);
    std::shared_ptr<SegmentFile> file = fresh == fresh_.end() ? nullptr : fresh->second.lock();
    if (file == nullptr) return not_found("no such segment: " + std::to_string(id));
    return file;
  }

  Status publish(std::string, const std::vector<SegmentId>& live, Lsn) override {
    std::map<SegmentId, std::shared_ptr<SegmentFile>> next;
    for (const SegmentId id : live) {
      ASSIGN_OR_RETURN(next[id], open_segment(id));
    }
    MutexLock lock(mutex_);
    live_.swap(next);  // the dropped ones die after the lock
    std::erase_if(fresh_, [](const auto& entry) { return entry.second.expired(); });
    return Status();
  }

  Result<std::shared_ptr<const BackupSource>> cut() override {
    return failed_precondition("there is nothing to copy: nothing is kept on the disk");
  }

  Status health() const override { return Status(); }
  const StorageMetrics& metrics() const override { return metrics_; }
  bool persistent() const override { return false; }

 private:
  static constexpr uint64_t kGeneration = 1;

  StorageMetrics metrics_;
  mutable Mutex mutex_;
  Lsn last_lsn_ GUARDED_BY(mutex_) = 0;
  std::set<SegmentId> ids_ GUARDED_BY(mutex_);
  std::map<SegmentId, std::weak_ptr<SegmentFile>> fresh_ GUARDED_BY(mutex_);
  std::map<SegmentId, std::shared_ptr<SegmentFile>> live_ GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<Storage> make_memory_storage() {
  return std::make_unique<MemoryStorage>();
}

}  // namespace aionbd
