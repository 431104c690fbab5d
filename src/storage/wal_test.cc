// The log: torn tails against damage, group commit, refused writes, failed syncs, sync policies.
#include "storage/wal.h"

#include <gtest/gtest.h>

#include <atomic>
#include <new>
#include <thread>

#include "io/sim_file_system.h"

namespace aionbd {
namespace {

constexpr const char* kLog = "store/wal-0000000000000001.log";

class WalTest : public ::testing::Test {
 protected:
  StorageOptions options(FileSystem* files) {
    StorageOptions out;
    out.dir = "store";
    out.files = files;
    out.clock = clock_;
    out.durability = durability_;
    out.group_commit_batch_max = batch_max_;
    out.group_commit_delay = delay_;
    out.logger = Logger([this](LogLevel level, std::string_view line) {
      if (no_memory_to_log_) throw std::bad_alloc();
      if (level >= LogLevel::kWarning) warnings_.emplace_back(line);
    });
    return out;
  }
  Result<std::unique_ptr<Storage>> try_open(FileSystem& files) {
    return Storage::open(options(&files));
  }
  std::unique_ptr<Storage> open() { return try_open(files_).value(); }

  static Status write(Storage& storage, std::string record) {
    const auto ticket = storage.append(std::move(record), storage.generation());
    return ticket.has_value() ? storage.commit(*ticket) : ticket.error();
  }
  static std::vector<std::string> replayed(Storage& storage) {
    std::vector<std::string> out;
    const Status status = storage.replay([&](Lsn, Bytes record) {
      out.emplace_back(as_text(record));
      return Status();
    });
    EXPECT_TRUE(status.ok()) << status.to_string();
    return out;
  }
  std::string log_bytes() { return files_.read(kLog, 1 << 24).value(); }

  SimFileSystem files_;
  Durability durability_;
  uint32_t batch_max_ = 16;
  std::chrono::milliseconds delay_{0};
  const Clock* clock_ = &system_clock_source();
  std::vector<std::string> warnings_;
  bool no_memory_to_log_ = false;
};

bool is_prefix(const std::vector<std::string>& part, const std::vector<std::string>& whole) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

// ---- Torn tails and damage ---------------------------------------------------------------------

class TornLogTest : public WalTest {
 protected:
  /// A log of two sessions, the second one not closed: as a kill leaves it.
  TornLogTest() {
    {
      auto storage = open();
      EXPECT_TRUE(write(*storage, "one").ok());
      EXPECT_TRUE(write(*storage, std::string(100, '2')).ok());
    }
    {
      auto storage = open();
      EXPECT_TRUE(write(*storage, "three").ok());
      EXPECT_TRUE(write(*storage, "four four").ok());
      killed_ = files_.crash_image(CrashKind::kKeepAll, 1);
    }
    log_ = killed_->read(kLog, 1 << 20).value();
  }

  /// The killed store with another log.
  std::unique_ptr<SimFileSystem> with_log(std::string_view log) {
    auto out = killed_->crash_image(CrashKind::kKeepAll, 1);
    out->overwrite(kLog, log);
    return out;
  }
  size_t frame_of(const std::string& payload) { return log_.find(payload) - sizeof(FrameHeader); }

  const std::vector<std::string> records_ = {"one", std::string(100, '2'), "three", "four four"};
  std::unique_ptr<SimFileSystem> killed_;
  std::string log_;
};

TEST_F(TornLogTest, EveryLengthRecoversAPrefixAndTakesRecords) {
  size_t longest = 0;
  for (size_t length = 0; length <= log_.size(); ++length) {
    SCOPED_TRACE(length);
    auto files = with_log(std::string_view(log_).substr(0, length));
    std::vector<std::string> found;
    {
      auto storage = try_open(*files);
      ASSERT_TRUE(storage.has_value()) << storage.status().to_string();
      found = replayed(**storage);
      ASSERT_TRUE(is_prefix(found, records_));
      ASSERT_GE(found.size(), longest) << "more bytes, fewer records";
      longest = found.size();
      ASSERT_TRUE(write(**storage, "new").ok());
    }
    found.emplace_back("new");
    auto again = try_open(*files);
    ASSERT_TRUE(again.has_value()) << again.status().to_string();
    ASSERT_EQ(replayed(**again), found);
  }
  EXPECT_EQ(longest, records_.size());
}

TEST_F(TornLogTest, TornBytesAreCountedAndReportedOnce) {
  auto files = with_log(std::string_view(log_).substr(0, log_.size() - 8));
  warnings_.clear();
  auto storage = try_open(*files).value();
  const size_t torn = log_.size() - 8 - frame_of("four four");
  EXPECT_EQ(storage->metrics().wal_discarded_bytes.value(), torn);
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_NE(warnings_[0].find("offset " + std::to_string(frame_of("four four"))), std::string::npos)
      << warnings_[0];
}

TEST_F(TornLogTest, ZerosAndNoiseBehindTheEndAreCut) {
  Rng rng(5);
  for (size_t extra : {1, 7, 8, 47, 48, 49, 512, 5000}) {
    for (const bool zeros : {true, false}) {
      std::string tail(extra, '\0');
      if (!zeros) {
        for (char& c : tail) c = static_cast<char>(rng.next());
      }
      auto files = with_log(log_ + tail);
      auto storage = try_open(*files);
      ASSERT_TRUE(storage.has_value()) << storage.status().to_string();
      EXPECT_EQ(replayed(**storage), records_);
      EXPECT_EQ((*storage)->metrics().wal_discarded_bytes.value(), extra);
    }
  }
}

TEST_F(TornLogTest, HoleIsNotSteppedOver) {
  // Two records of one group: neither was durable when the other was written.
  SimFileSystem running;
  std::unique_ptr<SimFileSystem> killed;
  {
    auto storage = try_open(running).value();
    const Ticket a = storage->append("first of group", storage->generation()).value();
    const Ticket b = storage->append("second of group", storage->generation()).value();
    ASSERT_TRUE(storage->commit(a).ok());
    ASSERT_TRUE(storage->commit(b).ok());
    killed = running.crash_image(CrashKind::kKeepAll, 1);
  }
  std::string log = killed->read(kLog, 1 << 20).value();
  log[log.find("first")] ^= 1;
  killed->overwrite(kLog, log);
  {
    auto storage = try_open(*killed).value();
    EXPECT_TRUE(replayed(*storage).empty());
    // Of the same length as the first: the second would be in place and in order, were it not cut.
    ASSERT_TRUE(write(*storage, "other of group").ok());
  }
  EXPECT_EQ(replayed(*try_open(*killed).value()), std::vector<std::string>{"other of group"});
}

TEST_F(TornLogTest, EveryFlippedBitIsFoundOrInTheLastGroup) {
  const size_t last_frame = frame_of("four four");
  for (size_t at = 0; at < log_.size(); ++at) {
    std::string damaged = log_;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    auto files = with_log(damaged);
    auto storage = try_open(*files);
    if (at < last_frame) {
      ASSERT_FALSE(storage.has_value()) << "offset " << at;
      ASSERT_EQ(storage.status().code(), Code::kCorruption) << "offset " << at;
      ASSERT_NE(storage.status().message().find("wal-0000000000000001.log"), std::string::npos);
      ASSERT_EQ(files->read(kLog, 1 << 20).value(), damaged) << "nothing is changed";
    } else {
      ASSERT_TRUE(storage.has_value()) << "offset " << at << storage.status().to_string();
      ASSERT_EQ(replayed(**storage).size(), 3u) << "offset " << at;
    }
  }
}

TEST_F(TornLogTest, SealedLogHidesNoDamage) {
  auto files = with_log(log_);
  try_open(*files).value().reset();
  const std::string sealed = files->read(kLog, 1 << 20).value();
  for (size_t at = 0; at + sizeof(FrameHeader) < sealed.size(); ++at) {
    std::string damaged = sealed;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    auto copy = files->crash_image(CrashKind::kKeepAll, 1);
    copy->overwrite(kLog, damaged);
    // The epoch frame before the seal holds nothing that could be lost.
    const bool marks_only = at + 2 * sizeof(FrameHeader) >= sealed.size();
    auto storage = try_open(*copy);
    ASSERT_EQ(storage.has_value(), false) << "offset " << at << (marks_only ? " (mark)" : "");
  }
}

TEST_F(TornLogTest, ManifestProvesDurabilityToo) {
  auto files = with_log(log_);
  {
    auto storage = try_open(*files).value();
    ASSERT_TRUE(storage->publish("c", {}, 0).ok());
  }
  files->overwrite(kLog, std::string_view(log_).substr(0, frame_of("four four")));
  EXPECT_EQ(try_open(*files).status().code(), Code::kCorruption);
}

TEST_F(TornLogTest, OnlyTheLastFileMayBeTorn) {
  auto files = with_log(log_);
  {
    auto storage = try_open(*files).value();
    ASSERT_TRUE(storage->rotate_log().has_value());
  }
  for (size_t length : {size_t{0}, size_t{63}, log_.size() - 8, log_.size()}) {
    files->overwrite(kLog, std::string_view(log_).substr(0, length));
    const bool whole = length == log_.size();
    EXPECT_EQ(try_open(*files).has_value(), whole) << length;
    files = files->crash_image(CrashKind::kKeepAll, 1);
  }
}

TEST_F(TornLogTest, NewLogFileOfAnyDebrisIsMadeAnew) {
  auto files = with_log(log_);
  try_open(*files).value()->rotate_log().value();
  const std::string second = "store/" + log_name(5);
  Rng rng(3);
  for (size_t length = 0; length <= sizeof(LogHeader); ++length) {
    for (const bool zeros : {true, false}) {
      auto copy = files->crash_image(CrashKind::kKeepAll, 1);
      std::string debris(length, '\0');
      if (!zeros) {
        for (char& c : debris) c = static_cast<char>(rng.next());
      }
      copy->overwrite(second, debris);
      auto storage = try_open(*copy);
      ASSERT_TRUE(storage.has_value()) << length << storage.status().to_string();
      EXPECT_EQ(replayed(**storage), records_);
      ASSERT_TRUE(write(**storage, "five").ok());
      storage->reset();
      EXPECT_EQ(replayed(*try_open(*copy).value()).back(), "five");
    }
  }
  files->overwrite(second, std::string(sizeof(LogHeader) + 1, '\0'));
  EXPECT_EQ(try_open(*files).status().code(), Code::kCorruption) << "too long for debris";
}

TEST_F(TornLogTest, NewerVersionIsNamedAndUntouched) {
  LogHeader header = read_as<LogHeader>(as_bytes_of(log_));
  header.version = kFormatVersion + 1;
  header.checksum =
      checksum_of(header, checksum_seed(header.store_id, header.first_lsn, kSeedLogHeader));
  std::string newer = log_;
  newer.replace(0, sizeof(header), as_text(bytes_of(header)));
  auto files = with_log(newer);
  const Status status = try_open(*files).status();
  EXPECT_EQ(status.code(), Code::kCorruption);
  EXPECT_NE(status.message().find("newer version"), std::string::npos) << status.message();
  EXPECT_EQ(files->read(kLog, 1 << 20).value(), newer);
}

TEST_F(TornLogTest, FramesOfACutTailStayDead) {
  // A group of two is torn in its first frame and cut. A record is written in its place, so long
  // that the second frame, should the medium show its old bytes again, is whole, in its place, and
  // of the right number. Only its epoch tells (rule 6).
  SimFileSystem running;
  std::unique_ptr<SimFileSystem> killed;
  {
    auto storage = try_open(running).value();
    const Ticket a = storage->append(std::string(48, 'a'), storage->generation()).value();
    const Ticket b = storage->append("ghost", storage->generation()).value();
    ASSERT_TRUE(storage->commit(a).ok());
    ASSERT_TRUE(storage->commit(b).ok());
    killed = running.crash_image(CrashKind::kKeepAll, 1);
  }
  std::string log = killed->read(kLog, 1 << 20).value();
  const std::string ghost = log.substr(log.find("ghost") - sizeof(FrameHeader));
  const size_t ghost_at = log.size() - ghost.size();
  log[log.find("aaaa")] = 'b';
  killed->overwrite(kLog, log);
  std::unique_ptr<SimFileSystem> again;
  {
    auto storage = try_open(*killed).value();
    ASSERT_TRUE(write(*storage, "").ok());
    again = killed->crash_image(CrashKind::kKeepAll, 1);
  }
  log = again->read(kLog, 1 << 20).value();
  ASSERT_EQ(log.size(), ghost_at) << "an epoch frame and an empty record";
  again->overwrite(kLog, log + ghost);
  EXPECT_EQ(replayed(*try_open(*again).value()), std::vector<std::string>{""});
}

TEST_F(TornLogTest, AFullDiskThatCannotCutKeepsTheStoreShut) {
  // Half of the epoch's frame gets in and stays: nothing may be written behind it.
  auto files = with_log(log_);
  files->set_hook([](const FileCall& call) -> std::optional<FileFault> {
    if (call.op == FileOp::kAppend) return FileFault{storage_full("full"), 20};
    if (call.op == FileOp::kTruncate) return FileFault{io_error("EIO")};
    return std::nullopt;
  });
  EXPECT_EQ(try_open(*files).status().code(), Code::kIoError);
  files->set_hook(nullptr);
  EXPECT_EQ(files->read(kLog, 1 << 20).value().size(), log_.size() + 20);
  auto storage = try_open(*files).value();
  EXPECT_EQ(storage->metrics().wal_discarded_bytes.value(), 20u);
  EXPECT_EQ(replayed(*storage), records_);
}

// ---- Group commit ------------------------------------------------------------------------------

TEST_F(WalTest, ConcurrentWritersAllGetTheirAnswer) {
  batch_max_ = 4;
  constexpr int kThreads = 16;
  constexpr int kEach = 200;
  {
    auto storage = open();
    std::vector<std::thread> threads;
    std::atomic<int> failed{0};
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < kEach; ++i) {
          if (!write(*storage, std::to_string(i)).ok()) ++failed;
        }
      });
    }
    std::thread rotator([&] {
      for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(storage->rotate_log().has_value());
        EXPECT_TRUE(storage->sync().ok());
      }
    });
    for (auto& thread : threads) thread.join();
    rotator.join();
    EXPECT_EQ(failed, 0);
    EXPECT_EQ(storage->committed_lsn(), Lsn{kThreads * kEach});
    EXPECT_GE(storage->metrics().group_commits.value(), uint64_t{kThreads * kEach / 4});
    EXPECT_EQ(storage->metrics().grouped_records.value(), uint64_t{kThreads * kEach});
    EXPECT_EQ(storage->metrics().group_queue_depth.value(), 0);
  }
  EXPECT_EQ(replayed(*open()).size(), size_t{kThreads * kEach});
}

TEST_F(WalTest, LeaderWaitsForCompanyWhenTold) {
  delay_ = std::chrono::milliseconds(2000);
  batch_max_ = 4;
  auto storage = open();
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] { EXPECT_TRUE(write(*storage, "x").ok()); });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(storage->metrics().group_commits.value(), 1u) << "a full group";
  EXPECT_LT(std::chrono::steady_clock::now() - start, delay_) << "does not wait on";
}

/// The machine's clock, and who asks for the time is known.
class WatchedClock : public Clock {
 public:
  MonotonicTime now() const override {
    if (asked) asked();
    return system_clock_source().now();
  }
  std::function<void()> asked;
};

TEST_F(WalTest, NothingIsWrittenWhenWritingEndsWhileTheOwnerWaits) {
  delay_ = std::chrono::milliseconds(1000);
  WatchedClock clock;
  clock_ = &clock;
  auto storage = open();
  const std::string before = log_bytes();
  files_.fail(FileOp::kSyncDir, "store", 1, FileFault{io_error("EIO")}, false);
  std::thread publisher;
  Status published;
  // The owner asks for the time, under the lock, when it begins to wait for company; that long it
  // does without the lock.
  clock.asked = [&] {
    if (publisher.joinable()) return;
    publisher = std::thread([&] { published = storage->publish("c", {}, 0); });
  };
  EXPECT_EQ(write(*storage, "one").code(), Code::kUnavailable);
  publisher.join();
  EXPECT_EQ(published.code(), Code::kUnavailable);
  EXPECT_EQ(storage->committed_lsn(), 0u);
  storage.reset();
  EXPECT_TRUE(log_bytes() == before) << "neither a record nor a seal";
}

TEST_F(WalTest, CommitOfWhatWasNeverAppendedIsOurDefect) {
  auto storage = open();
  EXPECT_EQ(storage->commit({5, storage->generation()}).code(), Code::kInternal);
  EXPECT_EQ(storage->commit({1, storage->generation() + 1}).code(), Code::kInternal);
}

TEST_F(WalTest, FailuresUnderLoadLeaveNobodyWaiting) {
  auto storage = open();
  std::atomic<uint64_t> calls{0};
  files_.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
    if (call.op == FileOp::kAppend && call.bytes > 48 && ++calls % 7 == 0) {
      return FileFault{storage_full("full"), call.bytes / 2};
    }
    return std::nullopt;
  });
  std::vector<std::thread> threads;
  std::atomic<int> succeeded{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        const auto ticket = storage->append("record", storage->generation());
        if (!ticket.has_value()) {
          EXPECT_EQ(ticket.status().code(), Code::kFailedPrecondition);
          continue;
        }
        const Status status = storage->commit(*ticket);
        if (status.ok()) {
          ++succeeded;
        } else {
          EXPECT_EQ(status.code(), Code::kStorageFull) << status.to_string();
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  files_.set_hook(nullptr);
  EXPECT_GT(storage->generation(), 1u);
  EXPECT_EQ(storage->committed_lsn(), static_cast<Lsn>(succeeded.load()));
  ASSERT_TRUE(write(*storage, "last").ok());
  storage.reset();
  EXPECT_EQ(replayed(*open()).size(), static_cast<size_t>(succeeded.load()) + 1);
}

// ---- Refused writes ----------------------------------------------------------------------------

TEST_F(WalTest, FullDiskDropsTheGenerationAndResumesByItself) {
  auto storage = open();
  ASSERT_TRUE(write(*storage, "one").ok());
  const Ticket kept = storage->append("two", storage->generation()).value();
  ASSERT_TRUE(storage->commit(kept).ok());
  const uint64_t used = files_.file_size(kLog).value() + files_.file_size("store/MANIFEST").value();
  files_.set_capacity(used + 20);
  const Ticket lost = storage->append("three", storage->generation()).value();
  const Ticket queued = storage->append("four", storage->generation()).value();
  EXPECT_EQ(storage->commit(lost).code(), Code::kStorageFull);
  EXPECT_EQ(storage->commit(queued).code(), Code::kStorageFull);
  EXPECT_EQ(storage->commit(kept).code(), Code::kOk) << "of an old generation, but written";
  EXPECT_EQ(storage->generation(), 2u);
  EXPECT_EQ(storage->last_lsn(), 2u);
  EXPECT_TRUE(storage->health().ok());
  EXPECT_EQ(write(*storage, "still full").code(), Code::kStorageFull);
  EXPECT_EQ(storage->generation(), 3u);
  EXPECT_EQ(storage->commit(lost).code(), Code::kStorageFull) << "remembered";
  files_.set_capacity(UINT64_MAX);
  ASSERT_TRUE(write(*storage, "three again").ok());
  EXPECT_EQ(storage->last_lsn(), 3u);
  storage.reset();
  EXPECT_EQ(replayed(*open()), (std::vector<std::string>{"one", "two", "three again"}));
}

TEST_F(WalTest, OutcomesOfOldGenerationsAreBounded) {
  auto storage = open();
  const Ticket first = storage->append("x", storage->generation()).value();
  files_.fail(FileOp::kAppend, "wal", 1, FileFault{storage_full("full")}, true);
  EXPECT_EQ(storage->commit(first).code(), Code::kStorageFull);
  for (int i = 0; i < 1023; ++i) ASSERT_EQ(write(*storage, "x").code(), Code::kStorageFull);
  EXPECT_EQ(storage->commit(first).code(), Code::kStorageFull);
  ASSERT_EQ(write(*storage, "x").code(), Code::kStorageFull);
  EXPECT_EQ(storage->commit(first).code(), Code::kUnavailable);
}

TEST_F(WalTest, FullDiskDoesNotKeepTheStoreShut) {
  {
    auto storage = open();
    ASSERT_TRUE(write(*storage, "one").ok());
  }
  files_.set_capacity(0);
  auto storage = open();
  EXPECT_EQ(replayed(*storage), std::vector<std::string>{"one"});
  EXPECT_EQ(write(*storage, "two").code(), Code::kStorageFull);
  EXPECT_EQ(storage->rotate_log().status().code(), Code::kStorageFull);
  EXPECT_TRUE(storage->health().ok());
  files_.set_capacity(UINT64_MAX);
  EXPECT_TRUE(write(*storage, "two").ok());
  EXPECT_EQ(storage->rotate_log().value(), 2u);
  EXPECT_TRUE(write(*storage, "three").ok());
  storage.reset();
  EXPECT_EQ(replayed(*open()).size(), 3u);
}

TEST_F(WalTest, FailedCutIsFailStop) {
  // Neither cut, nor cut and nobody says how long the file is.
  for (const FileOp op : {FileOp::kTruncate, FileOp::kFileSize}) {
    SimFileSystem files;
    auto storage = try_open(files).value();
    ASSERT_TRUE(write(*storage, "one").ok());
    files.set_hook([op](const FileCall& call) -> std::optional<FileFault> {
      if (call.op == FileOp::kAppend) return FileFault{storage_full("full"), 10};
      if (call.op == op) return FileFault{io_error("EIO")};
      return std::nullopt;
    });
    EXPECT_EQ(write(*storage, "two").code(), Code::kUnavailable);
    files.set_hook(nullptr);
    EXPECT_EQ(storage->health().code(), Code::kUnavailable);
    EXPECT_EQ(write(*storage, "three").code(), Code::kUnavailable);
    storage.reset();
    EXPECT_EQ(replayed(*try_open(files).value()), std::vector<std::string>{"one"});
  }
}

// A medium that says it has cut and has not: the bytes would come back as records.
TEST_F(WalTest, ACutIsBelievedOnlyWhenTheSizeSaysSo) {
  const auto lying = [](const FileCall& call) -> std::optional<FileFault> {
    if (call.op == FileOp::kAppend) return FileFault{storage_full("full"), 10};
    if (call.op == FileOp::kTruncate) return FileFault{Status()};
    return std::nullopt;
  };
  auto storage = open();
  ASSERT_TRUE(write(*storage, "one").ok());
  files_.set_hook(lying);
  EXPECT_EQ(write(*storage, "two").code(), Code::kUnavailable);
  EXPECT_NE(storage->health().message().find("log was not cut"), std::string::npos)
      << storage->health().message();
  storage.reset();
  // Nor is the torn tail that is left, when the store opens.
  const auto reopened = try_open(files_);
  EXPECT_EQ(reopened.status().code(), Code::kIoError);
  EXPECT_NE(reopened.status().message().find("log changed while it was opened"), std::string::npos)
      << reopened.status().message();
  files_.set_hook(nullptr);
  EXPECT_EQ(replayed(*open()), std::vector<std::string>{"one"});
}

// A caller would take it for a shortage of its own.
TEST_F(WalTest, ARefusalForMemoryIsUnavailable) {
  auto storage = open();
  files_.fail(FileOp::kAppend, "wal", 1, FileFault{resource_exhausted("out of memory")}, false);
  EXPECT_EQ(write(*storage, "one").code(), Code::kUnavailable);
  EXPECT_TRUE(storage->health().ok());
  EXPECT_EQ(storage->last_lsn(), 0u);
  EXPECT_TRUE(write(*storage, "two").ok());
  storage.reset();
  EXPECT_EQ(replayed(*open()), std::vector<std::string>{"two"});
}

TEST_F(WalTest, WithoutMemoryForAnErrorWritingEnds) {
  // No text can be made: of what the medium said, then of what is told of it.
  for (const bool medium : {true, false}) {
    SimFileSystem files;
    auto storage = try_open(files).value();
    ASSERT_TRUE(write(*storage, "one").ok());
    const Ticket lost = storage->append("two", storage->generation()).value();
    const Ticket queued = storage->append("three", storage->generation()).value();
    files.set_hook([medium](const FileCall& call) -> std::optional<FileFault> {
      if (call.op != FileOp::kAppend) return std::nullopt;
      if (medium) throw std::bad_alloc();
      return FileFault{storage_full("full"), 10};
    });
    no_memory_to_log_ = !medium;
    EXPECT_EQ(storage->commit(lost).code(), Code::kUnavailable);
    EXPECT_EQ(storage->commit(queued).code(), Code::kUnavailable);
    EXPECT_NE(storage->health().message().find("out of memory"), std::string::npos)
        << storage->health().message();
    EXPECT_EQ(storage->generation(), 1u) << "none began of which anybody could write";
    files.set_hook(nullptr);
    no_memory_to_log_ = false;
    EXPECT_EQ(write(*storage, "four").code(), Code::kUnavailable);
    EXPECT_EQ(storage->committed_lsn(), 1u);
    storage.reset();
    EXPECT_EQ(replayed(*try_open(files).value()), std::vector<std::string>{"one"});
  }
}

TEST_F(WalTest, RecordsOfAGenerationThatEndedAreRefused) {
  auto storage = open();
  const uint64_t before = storage->generation();
  files_.fail(FileOp::kAppend, "wal", 1, FileFault{storage_full("full")}, false);
  ASSERT_EQ(write(*storage, "one").code(), Code::kStorageFull);
  const Status late = storage->append("two", before).status();
  EXPECT_EQ(late.code(), Code::kFailedPrecondition);
  EXPECT_EQ(storage->last_lsn(), 0u) << "it has no place";
  EXPECT_TRUE(write(*storage, "three").ok());
}

// ---- Failed syncs ------------------------------------------------------------------------------

TEST_F(WalTest, FailedSyncIsFailStopAndNeverTriedAgain) {
  for (const bool shown : {true, false}) {
    SimFileSystem files;
    auto storage = try_open(files).value();
    ASSERT_TRUE(write(*storage, "one").ok());
    FileFault fault{io_error("EIO")};
    fault.reads_show_lost = shown;
    uint64_t syncs = 0;
    files.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
      if (call.op == FileOp::kSync && ++syncs == 1) return fault;
      return std::nullopt;
    });
    const Ticket a = storage->append("two", storage->generation()).value();
    const Ticket b = storage->append("three", storage->generation()).value();
    EXPECT_EQ(storage->commit(a).code(), Code::kUnavailable);
    EXPECT_EQ(storage->commit(b).code(), Code::kUnavailable);
    EXPECT_EQ(storage->commit({1, 1}).code(), Code::kOk);
    EXPECT_EQ(storage->committed_lsn(), 1u);
    EXPECT_EQ(storage->append("four", storage->generation()).status().code(), Code::kUnavailable);
    EXPECT_EQ(storage->sync().code(), Code::kUnavailable);
    EXPECT_EQ(storage->rotate_log().status().code(), Code::kUnavailable);
    EXPECT_EQ(storage->publish("c", {}, 0).code(), Code::kUnavailable);
    EXPECT_EQ(storage->new_segment(1).status().code(), Code::kUnavailable);
    EXPECT_NE(storage->health().message().find("EIO"), std::string::npos);
    EXPECT_EQ(storage->metrics().wal_tail_open.value(), 0);
    storage.reset();
    EXPECT_EQ(syncs, 1u);
    for (uint64_t seed = 0; seed < 50; ++seed) {
      auto image = files.crash_clone(seed, 50);
      auto reopened = try_open(*image);
      ASSERT_TRUE(reopened.has_value()) << reopened.status().to_string();
      EXPECT_GE(replayed(**reopened).size(), 1u);
    }
  }
}

TEST_F(WalTest, FailedSyncOfAnEpochIsFailStop) {
  auto storage = open();
  ASSERT_TRUE(write(*storage, "one").ok());
  files_.fail(FileOp::kAppend, "wal", 1, FileFault{storage_full("full"), 10}, false);
  ASSERT_EQ(write(*storage, "two").code(), Code::kStorageFull);
  // What was cut off can show again: no record is written before the epoch is durable.
  files_.fail(FileOp::kSync, "wal", 1, FileFault{io_error("EIO")}, false);
  EXPECT_EQ(write(*storage, "three").code(), Code::kUnavailable);
  EXPECT_EQ(storage->health().code(), Code::kUnavailable);
  EXPECT_EQ(log_bytes().find("three"), std::string::npos);
  storage.reset();
  EXPECT_EQ(replayed(*open()), std::vector<std::string>{"one"});
}

TEST_F(WalTest, ASyncWritesWhatIsQueuedOrSaysWhyNot) {
  auto storage = open();
  const Ticket lost = storage->append("one", storage->generation()).value();
  files_.fail(FileOp::kAppend, "wal", 1, FileFault{storage_full("full")}, false);
  EXPECT_EQ(storage->sync().code(), Code::kStorageFull);
  EXPECT_EQ(storage->generation(), 2u);
  EXPECT_EQ(storage->commit(lost).code(), Code::kStorageFull);
  const Ticket kept = storage->append("two", storage->generation()).value();
  EXPECT_TRUE(storage->sync().ok());
  EXPECT_EQ(storage->committed_lsn(), 1u);
  EXPECT_TRUE(storage->commit(kept).ok());
  const Ticket undecided = storage->append("three", storage->generation()).value();
  files_.fail(FileOp::kSync, "wal", 1, FileFault{io_error("EIO")}, false);
  EXPECT_EQ(storage->sync().code(), Code::kUnavailable);
  EXPECT_EQ(storage->commit(undecided).code(), Code::kUnavailable);
  EXPECT_EQ(replayed(*try_open(*files_.crash_image(CrashKind::kDropAll, 1)).value()),
            std::vector<std::string>{"two"});
}

TEST_F(WalTest, ASyncThatWaitedIsToldThatItsRecordsWereDropped) {
  auto storage = open();
  // Whether it asks in time, while the medium is slow to refuse, is chance: it is given longer.
  Status synced;
  for (auto slow = std::chrono::milliseconds(10); synced.ok(); slow *= 2) {
    ASSERT_LT(slow, std::chrono::seconds(20));
    std::thread waiting;
    files_.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
      if (call.op != FileOp::kAppend || waiting.joinable()) return std::nullopt;
      waiting = std::thread([&] { synced = storage->sync(); });
      std::this_thread::sleep_for(slow);
      return FileFault{storage_full("full")};
    });
    EXPECT_EQ(write(*storage, "dropped").code(), Code::kStorageFull);
    waiting.join();
  }
  EXPECT_EQ(synced.code(), Code::kStorageFull) << synced.to_string();
  files_.set_hook(nullptr);
  EXPECT_TRUE(storage->sync().ok()) << "nothing is left to sync";
  EXPECT_EQ(storage->last_lsn(), 0u);
}

TEST_F(WalTest, TheFirstReasonStays) {
  auto storage = open();
  ASSERT_TRUE(write(*storage, "one").ok());
  // While a publish syncs the directory, a write fails; then so does the directory.
  files_.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
    if (call.op == FileOp::kSync) return FileFault{io_error("of the log")};
    if (call.op != FileOp::kSyncDir) return std::nullopt;
    EXPECT_EQ(write(*storage, "two").code(), Code::kUnavailable);
    return FileFault{io_error("of the directory")};
  });
  EXPECT_EQ(storage->publish("c", {}, 0).code(), Code::kUnavailable);
  EXPECT_NE(storage->health().message().find("of the log"), std::string::npos)
      << storage->health().message();
  EXPECT_EQ(warnings_.size(), 1u) << "told once";
}

TEST_F(WalTest, ALogThatFailsWhenItIsClosedIsNotSealed) {
  // Written by the closing itself, or before and not yet synced.
  for (const bool queued : {true, false}) {
    SimFileSystem files;
    durability_.sync_on_write = queued;
    durability_.sync_every_n_writes = 100;
    auto storage = try_open(files).value();
    ASSERT_TRUE(write(*storage, "one").ok());
    ASSERT_TRUE(storage->sync().ok());
    const Ticket last = storage->append("two", storage->generation()).value();
    if (!queued) {
      EXPECT_TRUE(storage->commit(last).ok());
    }
    files.fail(FileOp::kSync, "wal", 1, FileFault{io_error("EIO")}, false);
    files.start_trace();
    storage.reset();
    const std::vector<std::string> calls = files.take_trace();
    ASSERT_FALSE(calls.empty());
    EXPECT_EQ(calls.size(), queued ? 2u : 1u) << "neither a seal nor another sync";
    EXPECT_EQ(calls.back(), std::string("sync ") + kLog);
    EXPECT_EQ(replayed(*try_open(*files.crash_image(CrashKind::kDropAll, 1)).value()),
              std::vector<std::string>{"one"});
  }
}

TEST_F(WalTest, FailedDirectorySyncInRotationIsFailStop) {
  auto storage = open();
  ASSERT_TRUE(write(*storage, "one").ok());
  files_.fail(FileOp::kSyncDir, "store", 1, FileFault{io_error("EIO")}, false);
  EXPECT_FALSE(storage->rotate_log().has_value());
  EXPECT_EQ(storage->health().code(), Code::kUnavailable);
}

TEST_F(WalTest, FileThatCannotBeMadeIsNotFailStop) {
  auto storage = open();
  ASSERT_TRUE(write(*storage, "one").ok());
  files_.fail(FileOp::kCreate, "wal", 1, FileFault{io_error("EMFILE")}, false);
  EXPECT_EQ(storage->rotate_log().status().code(), Code::kIoError);
  EXPECT_TRUE(storage->health().ok());
  EXPECT_TRUE(write(*storage, "two").ok());
  EXPECT_EQ(storage->rotate_log().value(), 2u);
}

// ---- Policies ----------------------------------------------------------------------------------

class PolicyTest : public WalTest {
 protected:
  uint64_t syncs() {
    uint64_t count = 0;
    for (const auto& line : files_.take_trace()) count += line.starts_with("sync store/wal");
    files_.start_trace();
    return count;
  }
  std::unique_ptr<Storage> open_traced() {
    durability_.sync_on_write = false;
    auto storage = open();
    files_.start_trace();
    return storage;
  }
};

TEST_F(PolicyTest, NeverSyncsByItself) {
  auto storage = open_traced();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(write(*storage, "x").ok());
  EXPECT_EQ(storage->committed_lsn(), 10u);
  EXPECT_EQ(syncs(), 0u);
  ASSERT_TRUE(storage->sync().ok());
  EXPECT_EQ(syncs(), 1u);
  ASSERT_TRUE(storage->sync().ok());
  EXPECT_EQ(syncs(), 0u) << "nothing to sync";
  ASSERT_TRUE(write(*storage, "x").ok());
  storage.reset();
  EXPECT_EQ(syncs(), 0u);
}

TEST_F(PolicyTest, SyncsEveryFewRecords) {
  durability_.sync_every_n_writes = 4;
  auto storage = open_traced();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(write(*storage, "x").ok());
  EXPECT_EQ(syncs(), 0u);
  ASSERT_TRUE(write(*storage, "x").ok());
  EXPECT_EQ(syncs(), 1u);
  for (int i = 0; i < 9; ++i) ASSERT_TRUE(write(*storage, "x").ok());
  EXPECT_EQ(syncs(), 2u);
  storage.reset();
  EXPECT_EQ(syncs(), 2u) << "the rest, and the seal";
}

TEST_F(PolicyTest, SyncsByTimeWithoutFurtherWrites) {
  durability_.sync_interval = std::chrono::seconds(1);
  auto storage = open_traced();
  ASSERT_TRUE(write(*storage, "x").ok());
  EXPECT_EQ(syncs(), 0u);
  uint64_t count = 0;
  for (int i = 0; i < 60 && count == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    count += syncs();
  }
  EXPECT_EQ(count, 1u);
  std::this_thread::sleep_for(std::chrono::milliseconds(150));
  EXPECT_EQ(syncs(), 0u) << "nothing left to sync";
}

/// Stands still until told, and tells when a thread has been told that it is later.
class SteppedClock : public Clock {
 public:
  MonotonicTime now() const override {
    const bool later = later_;
    if (later) asked_ = true;
    return MonotonicTime(std::chrono::hours(later ? 2 : 1));
  }
  void step() { later_ = true; }
  bool asked_since() const { return asked_; }

 private:
  std::atomic<bool> later_{false};
  mutable std::atomic<bool> asked_{false};
};

TEST_F(PolicyTest, AFailedSyncIsFailStopUnderEveryPolicy) {
  for (const bool by_time : {false, true}) {
    SimFileSystem files;
    SteppedClock clock;
    clock_ = &clock;
    durability_.sync_on_write = false;
    durability_.sync_interval = std::chrono::seconds(by_time ? 1 : 0);
    auto storage = try_open(files).value();
    std::atomic<uint64_t> tried{0};
    files.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
      if (call.op != FileOp::kSync) return std::nullopt;
      ++tried;
      return FileFault{io_error("EIO")};
    });
    ASSERT_TRUE(write(*storage, "x").ok()) << "it needs none";
    EXPECT_TRUE(storage->health().ok());
    clock.step();
    if (!by_time) {
      EXPECT_EQ(storage->sync().code(), Code::kUnavailable);
    }
    for (int i = 0; i < 2000 && storage->health().ok(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_EQ(storage->health().code(), Code::kUnavailable);
    EXPECT_EQ(write(*storage, "y").code(), Code::kUnavailable);
    EXPECT_EQ(storage->sync().code(), Code::kUnavailable);
    storage.reset();
    EXPECT_EQ(tried, 1u) << "never again";
  }
}

TEST_F(PolicyTest, TheTimerRestsOnWhatAnotherSyncBrought) {
  for (const bool refused : {false, true}) {
    SimFileSystem files;
    SteppedClock clock;
    clock_ = &clock;
    durability_.sync_on_write = false;
    durability_.sync_interval = std::chrono::seconds(1);
    auto storage = try_open(files).value();
    ASSERT_TRUE(write(*storage, "x").ok());
    std::atomic<uint64_t> tried{0};
    files.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
      if (call.op != FileOp::kSync || ++tried != 1) return std::nullopt;
      // Time passes while the medium is busy. The timer asks for it under the lock, and keeps the
      // lock until it waits for the file.
      clock.step();
      while (!clock.asked_since()) std::this_thread::yield();
      EXPECT_EQ(storage->committed_lsn(), 1u);
      if (refused) return FileFault{io_error("EIO")};
      return std::nullopt;
    });
    EXPECT_EQ(storage->sync().code(), refused ? Code::kUnavailable : Code::kOk);
    storage.reset();
    EXPECT_EQ(tried, refused ? 1u : 2u) << "but for the seal";
  }
}

}  // namespace
}  // namespace aionbd
