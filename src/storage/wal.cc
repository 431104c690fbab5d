// The log's write side.
//
// The job: many threads append records and each waits until its own is on the medium; one sync
// takes a thousand times longer than handing over a record, so threads must share syncs; and when
// the medium refuses, what happened to every single record must be known and reported.
//
// Outline. `append` fixes the order by putting the record in a queue; the payload is checksummed
// before the lock is taken and never copied. The file has one owner at a time. A thread in `commit`
// whose record is undecided becomes the owner if the file is free, else it sleeps on a word of its
// own. The owner takes up to a batch of records from the queue, writes them with one gathered
// write, syncs as the policy says, wakes exactly the threads it decided, and repeats until its own
// record is decided; then it hands the file to the thread that has waited longest. A woken thread
// finds what became of its record in its own waiter: it takes no lock that the others of its group,
// woken at the same time, would queue for. Rotation, `sync` and the timer are owners too, so
// nothing else ever touches the file. Ownership lives in the stack frame of a running thread that
// has no way out but `release`: there is no flag to leak.
//
// Refused writes. A write that failed may have left whole frames, which would come back after a
// restart although their writers were told that nothing happened. So the file is cut to the last
// decided frame, the cut is verified and synced, and only then is the error reported; the records
// of the queue go with it, because they were ordered after the refused ones: this ends a
// *generation*. What cannot be cut, and anything that cannot be synced, ends all writing
// (fail-stop): after a failed fsync the kernel may have dropped the pages and say ok the next time
// (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
//
// Dead frames. Bytes that were cut off can show again when the file grows over them and power fails
// (docs/format.md, media assumption 4). They would be whole, in place, and with the right number.
// So after every cut, and at every open, an epoch frame with a random number is written and synced
// before anything else; frames of another epoch do not count.
//
// Memory. Nothing allocates between taking a record from the queue and deciding it: waiters are
// linked, and groups are gathered in buffers made at the start. Only errors do, for their texts; if
// memory runs out for one of those, the log stops as it does when nothing can be known.
//
// Tried and dropped: one condition variable for all waiters (64 writers: each group woke all 64, of
// which 48 went back to sleep); one for each, under the mutex (the sixteen of a group woke, and
// went back to sleep on the mutex); the leader role as a boolean that followers poll.
#include "storage/wal.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "base/checksum.h"
#include "base/memory_guard.h"
#include "base/rng.h"

namespace aionbd {
namespace {

/// Endings of generations kept for late commits; each is under 200 bytes.
constexpr size_t kEndingsMax = 1024;
/// Longest sleep of the timer thread: how late it may notice that time has passed.
constexpr std::chrono::milliseconds kTimerStep{50};

constexpr std::array<std::byte, kFrameAlignment> kZeros{};

FrameHeader frame_header(FrameType type, Lsn lsn, Lsn durable, uint64_t epoch) {
  FrameHeader header;
  header.type = type;
  header.lsn = lsn;
  header.durable_lsn = durable;
  header.epoch = epoch;
  return header;
}

}  // namespace

Result<std::unique_ptr<WritableFile>> create_log_file(FileSystem* files, const std::string& dir,
                                                      uint64_t store_id, Lsn first_lsn,
                                                      uint64_t epoch, bool* sync_failed) {
  *sync_failed = false;
  LogHeader header;
  header.store_id = store_id;
  header.first_lsn = first_lsn;
  header.epoch = epoch;
  header.checksum = checksum_of(header, checksum_seed(store_id, first_lsn, kSeedLogHeader));
  ASSIGN_OR_RETURN(auto file, files->create(dir + "/" + log_name(first_lsn)));
  RETURN_IF_ERROR(file->append(bytes_of(header)));
  *sync_failed = true;
  RETURN_IF_ERROR(file->sync());
  RETURN_IF_ERROR(files->sync_dir(dir));
  *sync_failed = false;
  return file;
}

// ---- Opening and closing -----------------------------------------------------------------------

Wal::Wal(Key, WalOptions options, const LogScan& scan) : options_(std::move(options)) {
  MutexLock lock(mutex_);
  files_ = scan.files;
  last_lsn_ = written_lsn_ = synced_lsn_ = committed_lsn_ = scan.last_lsn;
  file_first_lsn_ = scan.files.back().first_lsn;
  file_end_ = scan.end_offset;
  epoch_ = scan.epoch;
  path_ = options_.dir + "/" + log_name(file_first_lsn_);
  constexpr size_t kPartsPerRecord = 3;  // header, record, padding
  const size_t group_max = std::max<uint32_t>(options_.group_commit_batch_max, 1);
  group_.reserve(group_max);
  headers_.reserve(group_max);
  parts_.reserve(kPartsPerRecord * group_max);
}

Result<std::unique_ptr<Wal>> Wal::open(WalOptions options, const LogScan& scan) {
  CHECK_TRUE(!scan.files.empty());
  auto wal = std::make_unique<Wal>(Key(), std::move(options), scan);
  RETURN_IF_ERROR(wal->take_over(scan));
  const Durability& durability = wal->options_.durability;
  if (!durability.sync_on_write && durability.sync_interval.count() > 0) {
    wal->timer_ = std::thread([w = wal.get()] { w->run_timer(); });
  }
  return wal;
}

Status Wal::take_over(const LogScan& scan) {
  StorageMetrics& metrics = *options_.metrics;
  if (scan.last_is_debris) {
    bool sync_failed = false;  // open fails either way
    epoch_ = next_epoch(scan.epoch, entropy_seed());
    ASSIGN_OR_RETURN(file_, create_log_file(options_.files, options_.dir, options_.store_id,
                                            file_first_lsn_, epoch_, &sync_failed));
    file_end_ = file_->size();
    options_.logger.info("storage: unfinished log file made anew file=" + path_);
  } else {
    ASSIGN_OR_RETURN(file_, options_.files->open_for_append(path_));
    if (scan.discarded_bytes != 0) {
      RETURN_IF_ERROR(file_->truncate(file_end_));
      metrics.wal_discarded_bytes.add(scan.discarded_bytes);
      options_.logger.warning("storage: torn log tail cut bytes=" +
                              std::to_string(scan.discarded_bytes) + " why=" + scan.torn_why);
    }
    // The cut, and what a killed process left in the operating system's cache (even the header may
    // be there only), are durable before anything is built on them.
    RETURN_IF_ERROR(file_->sync());
    if (file_->size() != file_end_) return io_error("log changed while it was opened: " + path_);
    epoch_ = next_epoch(epoch_, entropy_seed());
    const Status marked = append_mark(FrameType::kEpoch, scan.last_lsn, scan.durable_lsn);
    if (!marked.ok()) {
      // A full disk must not keep the store shut: the epoch is then begun by the first write.
      if (marked.code() != Code::kStorageFull) return marked;
      RETURN_IF_ERROR(cut_back());
      needs_epoch_ = true;
    }
    RETURN_IF_ERROR(file_->sync());
  }
  int64_t bytes = static_cast<int64_t>(file_end_);
  for (size_t i = 0; i + 1 < scan.files.size(); ++i)
    bytes += static_cast<int64_t>(scan.files[i].bytes);
  metrics.wal_size_bytes.set(bytes);
  metrics.wal_file_bytes.set(static_cast<int64_t>(file_end_));
  metrics.wal_tail_open.set(1);
  taken_over_ = true;
  return Status();
}

bool Wal::policy_ever_syncs() const {
  const Durability& durability = options_.durability;
  return durability.sync_on_write || durability.sync_every_n_writes != 0 ||
         durability.sync_interval.count() > 0;
}

Wal::~Wal() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    timer_wake_.notify_all();
  }
  if (timer_.joinable()) timer_.join();
  // Without memory it stays as a crash would leave it.
  as_memory_allows([this] { close(); });
}

void Wal::close() {
  MutexLock lock(mutex_);
  if (!taken_over_ || !health_.ok()) return;
  write_until(last_lsn_);
  if (!policy_ever_syncs() || !health_.ok()) return;
  if (synced_lsn_ < written_lsn_) sync_written();
  if (!health_.ok() || needs_epoch_) return;
  // The seal makes the whole log provably durable: from here on no bad frame passes for a torn
  // tail.
  Status status = append_mark(FrameType::kSeal, written_lsn_, synced_lsn_);
  if (status.ok()) status = timed_sync();
  if (!status.ok()) options_.logger.warning("storage: log not sealed why=" + status.message());
}

// ---- Callers -----------------------------------------------------------------------------------

Result<Ticket> Wal::append(std::string record, uint64_t generation, RecordEffect effect) {
  CHECK_LE(record.size(), kRecordBytesMax);
  Pending pending;
  pending.payload_checksum =
      checksum(as_bytes_of(record), checksum_seed(options_.store_id, record.size(), kSeedPayload));
  pending.record = std::move(record);
  MutexLock lock(mutex_);
  if (!health_.ok()) return health_;
  if (generation != generation_) {
    return failed_precondition("log refused records of this generation: got " +
                               std::to_string(generation) + ", current is " +
                               std::to_string(generation_));
  }
  // Looked at under the lock: what passes is in the queue before `write_queued` empties it.
  if (effect == RecordEffect::kAdds && !options_.reserve->growth_allowed()) {
    return storage_full("disk is full: only deletes are taken until there is space again");
  }
  pending.lsn = last_lsn_ + 1;
  const Ticket ticket{pending.lsn, generation};
  queue_.push_back(std::move(pending));  // what allocates comes first
  ++last_lsn_;
  options_.metrics->group_queue_depth.set(static_cast<int64_t>(queue_.size()));
  if (wants_company_ && queue_.size() >= options_.group_commit_batch_max) company_.notify_one();
  return ticket;
}

Status Wal::commit(const Ticket& ticket, Lsn* committed_through) {
  Lsn ignored = 0;
  if (committed_through == nullptr) committed_through = &ignored;
  MutexLock lock(mutex_);
  bool owner = false;
  if (!is_decided(ticket)) {
    if (owned_) {
      Waiter waiter;
      waiter.ticket = &ticket;
      enqueue(waiter);
      lock.unlock();
      waiter.state.sleep_while(Waiter::kWaiting);
      if (waiter.committed_through != 0) {
        *committed_through = waiter.committed_through;
        return Status();
      }
      lock.lock();
      owner = waiter.state.get() == Waiter::kOwner;
    } else {
      owned_ = owner = true;
    }
  }
  if (owner) {
    while (!is_decided(ticket)) {
      CHECK_TRUE(!queue_.empty());  // an undecided record is in the queue when nobody writes
      if (options_.group_commit_delay.count() > 0) wait_for_company();
      write_group();
    }
    release();
  }
  *committed_through = committed_with(ticket);
  if (*committed_through != 0) return Status();
  const Status outcome =
      within_memory([&]() NO_THREAD_SAFETY_ANALYSIS { return refusal_of(ticket); });
  // A refusal that there is no memory to spell out. The caller must not take it for its own.
  if (outcome.code() == Code::kResourceExhausted) return Status(Code::kUnavailable, "no memory");
  return outcome;
}

Status Wal::sync() {
  MutexLock lock(mutex_);
  if (!health_.ok()) return health_;
  if (synced_lsn_ == last_lsn_) return Status();
  const uint64_t generation = generation_;
  const Lsn target = last_lsn_;
  const Owner owner(*this);
  if (generation == generation_) write_until(target);
  if (health_.ok() && synced_lsn_ < written_lsn_) sync_written();
  Status status = health_;
  if (status.ok() && generation != generation_) status = endings_.back().cause;
  return status;
}

void Wal::write_queued() {
  MutexLock lock(mutex_);
  const Owner owner(*this);
  write_until(last_lsn_);
}

Result<Lsn> Wal::rotate() {
  MutexLock lock(mutex_);
  const Owner owner(*this);
  settle();
  Status status = health_;
  if (status.ok() && file_first_lsn_ <= written_lsn_) status = switch_file();
  if (!status.ok()) return status;
  return written_lsn_;
}

Result<LogCut> Wal::cut() {
  MutexLock lock(mutex_);
  const Owner owner(*this);
  settle();
  if (!health_.ok()) return health_;
  LogCut out{files_, written_lsn_};
  // What is cut off after a refused write lies behind this place.
  out.files.back().bytes = file_end_;
  return out;
}

uint64_t Wal::generation() const {
  MutexLock lock(mutex_);
  return generation_;
}
Lsn Wal::committed_lsn() const {
  MutexLock lock(mutex_);
  return committed_lsn_;
}
Lsn Wal::last_lsn() const {
  MutexLock lock(mutex_);
  return last_lsn_;
}
Lsn Wal::durable_lsn() const {
  MutexLock lock(mutex_);
  return synced_lsn_;
}
Status Wal::health() const {
  MutexLock lock(mutex_);
  return health_;
}
void Wal::fail_stop(const Status& cause) {
  MutexLock lock(mutex_);
  fail_stop_locked(cause);  // whoever waits is woken by the owner it waits for
}

// ---- Ownership of the file ---------------------------------------------------------------------

void Wal::acquire() {
  if (!owned_) {
    owned_ = true;
    return;
  }
  Waiter waiter;
  enqueue(waiter);
  mutex_.unlock();
  waiter.state.sleep_while(Waiter::kWaiting);
  mutex_.lock();
}

void Wal::release() {
  DCHECK_TRUE(owned_);
  Waiter* const decided = take_decided();
  Waiter* const next = waiters_;
  if (next == nullptr) {
    owned_ = false;
  } else {
    waiters_ = next->next;
  }
  if (next == nullptr && decided == nullptr) return;
  mutex_.unlock();
  // The medium is not to wait until as many threads as a group has have answered their callers.
  if (next != nullptr) wake(next, Waiter::kOwner);
  wake_all(decided);
  mutex_.lock();
}

void Wal::wake_decided() {
  Waiter* const decided = take_decided();
  if (decided == nullptr) return;
  mutex_.unlock();
  wake_all(decided);
  mutex_.lock();
}

void Wal::enqueue(Waiter& waiter) {
  Waiter** last = &waiters_;
  while (*last != nullptr) last = &(*last)->next;
  *last = &waiter;
}

/// The waiters whose tickets are decided, and no other, linked.
Wal::Waiter* Wal::take_decided() {
  Waiter* decided = nullptr;
  Waiter** end = &decided;
  for (Waiter** at = &waiters_; *at != nullptr;) {
    Waiter* const waiter = *at;
    if (waiter->ticket == nullptr || !is_decided(*waiter->ticket)) {
      at = &waiter->next;
      continue;
    }
    *at = waiter->next;
    waiter->committed_through = committed_with(*waiter->ticket);
    waiter->next = nullptr;
    *end = waiter;
    end = &waiter->next;
  }
  return decided;
}

void Wal::wake_all(Waiter* decided) {
  while (decided != nullptr) {
    Waiter* const waiter = decided;
    decided = decided->next;
    wake(waiter, Waiter::kDecided);
  }
}

void Wal::wake(Waiter* waiter, Waiter::State state) {
  waiter->state.set_and_wake(state);
}

/// False while it is open what becomes of a record.
bool Wal::is_decided(const Ticket& ticket) const {
  return ticket.generation != generation_ || ticket.lsn <= committed_lsn_ || !health_.ok() ||
         ticket.lsn > last_lsn_;
}

/// Of a decided record: the newest one of its generation that is committed; 0: it was refused.
Lsn Wal::committed_with(const Ticket& ticket) const {
  if (ticket.generation == generation_) {
    return ticket.lsn <= committed_lsn_ ? committed_lsn_ : 0;
  }
  const Ending* const ending = ending_of(ticket.generation);
  // What was written when a generation ended was synced with the cut.
  return ending != nullptr && ticket.lsn <= ending->last_written ? ending->last_written : 0;
}

/// Why a record was refused. REQUIRES: it is decided, and not committed.
Status Wal::refusal_of(const Ticket& ticket) const {
  if (ticket.generation < generation_) {
    const Ending* const ending = ending_of(ticket.generation);
    if (ending != nullptr) return ending->cause;
    return unavailable("outcome unknown: the record's generation ended too long ago");
  }
  if (!health_.ok()) return health_;
  return internal_error("commit of a record that was never appended: lsn " +
                        std::to_string(ticket.lsn));
}

/// How a generation ended; null: too long ago. REQUIRES: it is not the current one.
const Wal::Ending* Wal::ending_of(uint64_t generation) const {
  // Endings are consecutive, the last one is of the generation before this.
  const uint64_t age = generation_ - generation;
  return age > endings_.size() ? nullptr : &endings_[endings_.size() - age];
}

// ---- Groups ------------------------------------------------------------------------------------

void Wal::wait_for_company() {
  const MonotonicTime deadline = options_.clock->now() + options_.group_commit_delay;
  wants_company_ = true;
  while (queue_.size() < options_.group_commit_batch_max) {
    if (!company_.wait_until(mutex_, deadline)) break;
  }
  wants_company_ = false;
}

void Wal::write_until(Lsn target) {
  const uint64_t generation = generation_;
  while (health_.ok() && generation == generation_ && written_lsn_ < target) write_group();
}

/// Writes one group from the queue and decides its records, whose threads are woken by what comes
/// next. REQUIRES: ownership.
void Wal::write_group() {
  wake_decided();              // by the group before
  if (queue_.empty()) return;  // a fail-stop empties it, too
  const size_t count =
      std::min<size_t>(queue_.size(), std::max<uint32_t>(options_.group_commit_batch_max, 1));
  group_.assign(std::make_move_iterator(queue_.begin()),
                std::make_move_iterator(queue_.begin() + static_cast<ptrdiff_t>(count)));
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(count));
  options_.metrics->group_queue_depth.set(static_cast<int64_t>(queue_.size()));
  const Lsn before = written_lsn_;
  const Lsn durable = synced_lsn_;
  const Lsn last = group_.back().lsn;
  mutex_.unlock();
  GroupResult result;
  if (!as_memory_allows([&] { result = write_and_sync(group_, before, durable); })) {
    result.fatal = out_of_memory();  // an error there was no memory to tell of
  }
  group_.clear();  // frees the records outside the lock
  mutex_.lock();
  if (!result.fatal.ok()) {
    fail_stop_locked(result.fatal);
  } else if (!result.written.ok()) {
    note_written(before, result.synced);
    drop_generation(result.written);
  } else {
    note_written(last, result.synced);
    options_.metrics->group_commits.add();
    options_.metrics->grouped_records.add(count);
  }
}

/// REQUIRES: `lsn` is newly written, or it is synced.
void Wal::note_written(Lsn lsn, bool synced) {
  if (!synced && synced_lsn_ == written_lsn_) {
    oldest_unsynced_ = options_.clock->now();
    timer_wake_.notify_all();
  }
  written_lsn_ = lsn;
  if (synced) synced_lsn_ = lsn;
  committed_lsn_ = options_.durability.sync_on_write ? synced_lsn_ : written_lsn_;
}

Wal::GroupResult Wal::write_and_sync(const std::vector<Pending>& group, Lsn before, Lsn durable) {
  GroupResult result;
  const MonotonicTime start = options_.clock->now();
  if (needs_epoch_) {
    epoch_ = next_epoch(epoch_, entropy_seed());
    result.written = append_mark(FrameType::kEpoch, before, durable);
    if (result.written.ok()) {
      result.fatal = timed_sync();
      if (!result.fatal.ok()) return result;
      needs_epoch_ = false;
      durable = before;
    }
  }
  if (result.written.ok()) result.written = append_frames(group, durable);
  options_.metrics->wal_append.observe_us(elapsed_us(start, options_.clock->now()));
  if (!result.written.ok()) {
    // Cut, verified and synced, before anybody is told that nothing happened.
    result.fatal = cut_back();
    if (result.fatal.ok()) result.fatal = timed_sync();
    needs_epoch_ = true;
    result.synced = result.fatal.ok();
    return result;
  }
  unsynced_count_ += group.size();
  const Durability& durability = options_.durability;
  const bool by_count = !durability.sync_on_write && durability.sync_every_n_writes != 0 &&
                        unsynced_count_ >= durability.sync_every_n_writes;
  if (durability.sync_on_write || by_count) {
    result.fatal = timed_sync();
    result.synced = result.fatal.ok();
  }
  return result;
}

Status Wal::append_frames(const std::vector<Pending>& group, Lsn durable) {
  headers_.clear();
  headers_.reserve(group.size());  // parts_ points into it
  parts_.clear();
  uint64_t offset = file_end_;
  for (const Pending& pending : group) {
    FrameHeader header = frame_header(FrameType::kRecord, pending.lsn, durable, epoch_);
    header.payload_bytes = static_cast<uint32_t>(pending.record.size());
    header.payload_checksum = pending.payload_checksum;
    header.checksum =
        checksum_of(header, checksum_seed(options_.store_id, file_first_lsn_, offset));
    headers_.push_back(header);
    parts_.push_back(bytes_of(headers_.back()));
    parts_.push_back(as_bytes_of(pending.record));
    const uint64_t whole = frame_bytes(pending.record.size());
    const uint64_t padding = whole - sizeof(FrameHeader) - pending.record.size();
    if (padding != 0) parts_.push_back(Bytes(kZeros).first(padding));
    offset += whole;
  }
  RETURN_IF_ERROR(file_->append(parts_));
  options_.metrics->wal_size_bytes.add(static_cast<int64_t>(offset - file_end_));
  file_end_ = offset;
  options_.metrics->wal_file_bytes.set(static_cast<int64_t>(file_end_));
  return Status();
}

/// A frame without payload, after record `last`.
Status Wal::append_mark(FrameType type, Lsn last, Lsn durable) {
  FrameHeader header = frame_header(type, last, durable, epoch_);
  header.payload_checksum = checksum({}, checksum_seed(options_.store_id, 0, kSeedPayload));
  header.checksum =
      checksum_of(header, checksum_seed(options_.store_id, file_first_lsn_, file_end_));
  RETURN_IF_ERROR(file_->append(bytes_of(header)));
  options_.metrics->wal_size_bytes.add(sizeof(FrameHeader));
  file_end_ += sizeof(FrameHeader);
  return Status();
}

/// Cuts the file to its last whole frame and believes it only when the file system confirms.
Status Wal::cut_back() {
  RETURN_IF_ERROR(file_->truncate(file_end_));
  ASSIGN_OR_RETURN(const uint64_t size, options_.files->file_size(path_));
  if (size != file_end_) {
    return io_error("log was not cut: '" + path_ + "' has " + std::to_string(size) +
                    " bytes, want " + std::to_string(file_end_));
  }
  return Status();
}

Status Wal::timed_sync() {
  const MonotonicTime start = options_.clock->now();
  Status status = file_->sync();
  options_.metrics->wal_sync.observe_us(elapsed_us(start, options_.clock->now()));
  if (status.ok()) unsynced_count_ = 0;
  return status;
}

/// REQUIRES: ownership.
void Wal::sync_written() {
  const Lsn written = written_lsn_;
  mutex_.unlock();
  const Status status = within_memory([this] { return timed_sync(); });
  mutex_.lock();
  if (status.ok()) {
    note_written(written, true);
  } else {
    fail_stop_locked(status);
  }
}

/// Writes and syncs what was appended so far. REQUIRES: ownership.
void Wal::settle() {
  if (health_.ok()) write_until(last_lsn_);
  if (health_.ok() && synced_lsn_ < written_lsn_) sync_written();
  wake_decided();
}

// ---- Refusals ----------------------------------------------------------------------------------

/// Everything appended and not written never happened. REQUIRES: the file is cut and synced.
void Wal::drop_generation(const Status& cause) {
  const bool told = as_memory_allows([&]() NO_THREAD_SAFETY_ANALYSIS {
    options_.logger.error("storage: log refused a write, records dropped count=" +
                          std::to_string(last_lsn_ - written_lsn_) + " why=" + cause.message());
    endings_.push_back({generation_, written_lsn_, cause});
  });
  if (!told) return fail_stop_locked(out_of_memory());  // nobody could be told what happened
  if (endings_.size() > kEndingsMax) endings_.pop_front();
  ++generation_;
  last_lsn_ = written_lsn_;
  queue_.clear();
  options_.metrics->group_queue_depth.set(0);
}

void Wal::fail_stop_locked(const Status& cause) {
  if (!health_.ok()) return;
  health_ = Status(Code::kUnavailable, "storage failed");  // without an allocation
  as_memory_allows([&]() NO_THREAD_SAFETY_ANALYSIS {
    health_ =
        unavailable("storage failed, writes are refused until it is reopened: " + cause.message());
    options_.logger.error("storage: " + health_.message());
  });
  queue_.clear();
  options_.metrics->group_queue_depth.set(0);
  options_.metrics->wal_tail_open.set(0);
}

// ---- Files -------------------------------------------------------------------------------------

/// Goes on in a new file. REQUIRES: ownership; everything written is synced; the file has records.
Status Wal::switch_file() {
  const Lsn first_lsn = written_lsn_ + 1;
  const uint64_t old_bytes = file_end_;
  files_.reserve(files_.size() + 1);
  std::string path = options_.dir + "/" + log_name(first_lsn);
  mutex_.unlock();
  bool sync_failed = false;
  const uint64_t epoch = next_epoch(epoch_, entropy_seed());
  auto fresh = within_memory([&] {
    return create_log_file(options_.files, options_.dir, options_.store_id, first_lsn, epoch,
                           &sync_failed);
  });
  Status status = fresh.has_value() ? Status() : Status(fresh.error().code(), "");
  Status fatal;
  if (status.ok()) {
    file_ = *std::move(fresh);
    file_end_ = file_->size();
    file_first_lsn_ = first_lsn;
    epoch_ = epoch;
    needs_epoch_ = false;
    path_.swap(path);
    options_.metrics->wal_size_bytes.add(static_cast<int64_t>(file_end_));
    options_.metrics->wal_file_bytes.set(static_cast<int64_t>(file_end_));
  } else {
    fatal = within_memory([&]() -> Status {
      status = fresh.error();
      if (sync_failed) return status;
      // The old file goes on; a leftover of the new one would contradict it after a restart.
      const Status removed = options_.files->remove(path);
      if (removed.code() == Code::kNotFound) return Status();
      return removed.ok() ? options_.files->sync_dir(options_.dir) : removed;
    });
  }
  mutex_.lock();
  if (!fatal.ok()) {
    fail_stop_locked(fatal);
    return health_;
  }
  if (!status.ok()) return status;
  files_.back().bytes = old_bytes;
  files_.push_back({first_lsn, sizeof(LogHeader)});
  return Status();
}

void Wal::remove_obsolete(Lsn replay_after) {
  while (true) {
    LogFile oldest;
    {
      MutexLock lock(mutex_);
      if (files_.size() < 2 || files_[1].first_lsn > replay_after + 1) return;
      oldest = files_.front();
    }
    const std::string path = options_.dir + "/" + log_name(oldest.first_lsn);
    const Status removed = options_.files->remove(path);
    if (!removed.ok() && removed.code() != Code::kNotFound) {
      options_.logger.warning("storage: old log file not removed, will be tried again why=" +
                              removed.message());
      return;
    }
    MutexLock lock(mutex_);
    files_.erase(files_.begin());
    options_.metrics->wal_size_bytes.add(-static_cast<int64_t>(oldest.bytes));
  }
}

// ---- Timer -------------------------------------------------------------------------------------

/// Syncs when the oldest unsynced record is `sync_interval` old, whether or not writes come.
void Wal::run_timer() {
  MutexLock lock(mutex_);
  while (!stopping_ && health_.ok()) {
    if (synced_lsn_ == written_lsn_) {
      timer_wake_.wait(mutex_);
      continue;
    }
    const auto age = options_.clock->now() - oldest_unsynced_;
    const auto left = options_.durability.sync_interval - age;
    if (left > std::chrono::nanoseconds(0)) {
      const auto step = std::min<std::chrono::nanoseconds>(left, kTimerStep);
      timer_wake_.wait_until(mutex_, std::chrono::steady_clock::now() + step);
      continue;
    }
    const Owner owner(*this);
    if (health_.ok() && synced_lsn_ < written_lsn_) sync_written();
  }
}

}  // namespace aionbd
