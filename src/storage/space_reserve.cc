// See space_reserve.h.
#include "storage/space_reserve.h"

#include <algorithm>

#include "base/memory_guard.h"

namespace aionbd {
namespace {

/// Between two tries to take the space back, so that a storm of refused writes costs nothing.
constexpr std::chrono::milliseconds kTryEvery{200};
constexpr size_t kZerosBytes = size_t{1} << 20;

}  // namespace

void SpaceReserve::start() {
  if (!configured()) {
    // Best effort: what stays is space, not data.
    if (options_.files->file_size(options_.path).has_value()) {
      static_cast<void>(options_.files->remove(options_.path));
    }
    return;
  }
  MutexLock lock(mutex_);
  if (take()) return;
  options_.logger.warning(
      "storage: no space for the reserve, nothing is added until there is bytes=" +
      std::to_string(options_.bytes));
}

/// True when the space is held.
bool SpaceReserve::take() {
  next_try_ = options_.clock->now() + kTryEvery;
  if (file_ == nullptr) {
    // What an old one holds stays held meanwhile: on a full disk somebody else would take it.
    auto file = options_.files->open_for_append(options_.path);
    if (!file.has_value()) file = options_.files->create(options_.path);
    if (!file.has_value()) return false;
    file_ = *std::move(file);
  }
  Status taken = file_->allocate(options_.bytes);
  if (taken.code() == Code::kFailedPrecondition) taken = fill_with_zeros();
  if (!taken.ok()) static_cast<void>(file_->truncate(0));
  whole_.store(taken.ok(), std::memory_order_release);
  return taken.ok();
}

/// For file systems that cannot allocate.
Status SpaceReserve::fill_with_zeros() {
  const std::string zeros(kZerosBytes, '\0');
  while (file_->size() < options_.bytes) {
    const uint64_t left = options_.bytes - file_->size();
    RETURN_IF_ERROR(
        file_->append(as_bytes_of(zeros).first(std::min<uint64_t>(left, zeros.size()))));
  }
  return file_->sync();  // an error of delayed allocation comes here
}

Status SpaceReserve::admit_growth() {
  if (growth_allowed()) return Status();
  MutexLock lock(mutex_);
  if (growth_allowed()) return Status();
  const bool due = !next_try_.has_value() || options_.clock->now() >= *next_try_;
  if (users_ == 0 && due && take()) {
    options_.logger.info("storage: space is back, writes go on");
    return Status();
  }
  return storage_full("disk is full: only deletes are taken until there is space again");
}

void SpaceReserve::refuse_growth() {
  MutexLock lock(mutex_);
  ++users_;
  whole_.store(false, std::memory_order_release);
}

void SpaceReserve::give() {
  MutexLock lock(mutex_);
  if (file_ == nullptr) return;
  given_.add();
  // The sync makes file systems with a journal hand the space out at once. The file holds nothing,
  // so neither call can lose anything.
  static_cast<void>(file_->truncate(0));
  static_cast<void>(file_->sync());
}

void SpaceReserve::end_use() {
  MutexLock lock(mutex_);
  if (--users_ > 0) return;
  // Without memory it is taken by the next one who asks for space.
  as_memory_allows([this]() NO_THREAD_SAFETY_ANALYSIS {
    if (take()) return;
    options_.logger.warning(
        "storage: disk is full, the reserve is spent; nothing is added until there is space");
  });
}

}  // namespace aionbd
