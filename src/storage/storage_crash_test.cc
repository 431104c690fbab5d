// Power cuts at every call, on the simulated disk. One run of a protocol; before each of its
// mutations every kind of crash image is made and recovered, and so is, in turn, every mutation of
// that recovery. What must hold is in `check_image`.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "io/sim_file_system.h"
#include "storage/format.h"
#include "storage/storage.h"

namespace aionbd {
namespace {

/// What the store may look like after a crash now.
struct Oracle {
  std::vector<std::string> history;       // records by lsn - 1, as far as they may exist
  Lsn durable = 0;                        // these must exist
  std::vector<std::string> roots = {""};  // catalogs that may be found
};

std::string record_text(Lsn lsn, int salt) {
  Rng rng(lsn * 7919 + static_cast<uint64_t>(salt));
  std::string out = "record " + std::to_string(lsn) + " of " + std::to_string(salt) + " ";
  out.append(rng.below(3) == 0 ? rng.below(2500) : rng.below(90),
             static_cast<char>('a' + salt % 26));
  return out;
}
std::string segment_text(SegmentId id) {
  return std::string(500 + id * 300, static_cast<char>('A' + id % 26));
}

class Session {
 public:
  Session(SimFileSystem* files, Durability durability) {
    StorageOptions options;
    options.dir = "store";
    options.files = files;
    options.clock = &system_clock_source();
    options.durability = durability;
    auto opened = Storage::open(std::move(options));
    status_ = opened.status();
    if (opened.has_value()) storage_ = *std::move(opened);
  }
  const Status& status() const { return status_; }
  Storage& operator*() { return *storage_; }
  Storage* operator->() { return storage_.get(); }

 private:
  Status status_;
  std::unique_ptr<Storage> storage_;
};

/// "after=3;segments=1,2," : what a catalog of these tests says.
std::string catalog_text(Lsn after, const std::vector<SegmentId>& segments) {
  std::string out = "after=" + std::to_string(after) + ";segments=";
  for (const SegmentId id : segments) out += std::to_string(id) + ",";
  return out;
}

class StorageCrashTest : public ::testing::Test {
 protected:
  void SetUp() override { durability_.sync_on_write = true; }

  /// The store in `files` is whole: one of the allowed roots with its segments, a prefix of the
  /// history with all that was durable, and it takes and keeps another record.
  void check_image(SimFileSystem& files, const std::string& where) {
    ++images_;
    std::vector<std::string> records;
    Lsn after = 0;
    {
      Session session(&files, durability_);
      ASSERT_TRUE(session.status().ok()) << where << ": " << session.status().to_string();
      const std::string catalog(session->catalog());
      ASSERT_NE(std::find(oracle_.roots.begin(), oracle_.roots.end(), catalog), oracle_.roots.end())
          << where << ": unexpected root " << catalog;
      if (!catalog.empty()) check_catalog(*session, catalog, &after, where);
      Lsn next = after + 1;
      const Status replayed = session->replay([&](Lsn lsn, Bytes record) {
        EXPECT_EQ(lsn, next++) << where;
        records.emplace_back(as_text(record));
        return Status();
      });
      ASSERT_TRUE(replayed.ok()) << where << ": " << replayed.to_string();
      const Lsn last = after + records.size();
      ASSERT_EQ(session->last_lsn(), last) << where;
      ASSERT_GE(last, oracle_.durable) << where << ": an acknowledged record is lost";
      ASSERT_LE(last, oracle_.history.size()) << where << ": a record that never was";
      for (Lsn lsn = after + 1; lsn <= last; ++lsn) {
        ASSERT_EQ(records[lsn - after - 1], oracle_.history[lsn - 1]) << where;
      }
      const auto ticket = session->append("after recovery", session->generation());
      ASSERT_TRUE(ticket.has_value()) << where;
      ASSERT_EQ(ticket->lsn, last + 1) << where;
      ASSERT_TRUE(session->commit(*ticket).ok()) << where;
    }
    // Recovering again changes nothing (O1: the tail must have been cut before that record).
    Session again(&files, durability_);
    ASSERT_TRUE(again.status().ok()) << where << ", again: " << again.status().to_string();
    records.emplace_back("after recovery");
    std::vector<std::string> second;
    ASSERT_TRUE(again
                    ->replay([&](Lsn, Bytes record) {
                      second.emplace_back(as_text(record));
                      return Status();
                    })
                    .ok());
    ASSERT_EQ(second, records) << where;
    check_names(files, where);
  }

  static void check_catalog(Storage& storage, const std::string& catalog, Lsn* after,
                            const std::string& where) {
    *after = std::stoull(catalog.substr(6));
    size_t at = catalog.find("segments=") + 9;
    while (at < catalog.size()) {
      const SegmentId id = std::stoull(catalog.substr(at));
      at = catalog.find(',', at) + 1;
      auto file = storage.open_segment(id);
      ASSERT_TRUE(file.has_value()) << where << ": " << file.status().to_string();
      ASSERT_EQ(as_text((*file)->section(1).value().all().value()), segment_text(id)) << where;
    }
  }

  /// No leftovers: one lock, one manifest, logs, and live segments only.
  static void check_names(SimFileSystem& files, const std::string& where) {
    const std::vector<std::string> names = files.list("store").value();
    for (const std::string& name : names) {
      ASSERT_FALSE(name.ends_with(".tmp")) << where;
      if (const auto id = parse_segment_name(name)) {
        const std::string root = files.read("store/MANIFEST", 1 << 20).value();
        ASSERT_NE(root.find("=" + std::to_string(*id) + ",") != std::string::npos ||
                      root.find("," + std::to_string(*id) + ",") != std::string::npos,
                  false)
            << where << ": orphan " << name;
      }
    }
  }

  /// Every crash image of `files` as it is now; those at every mutation of their recovery too, if
  /// `depth` says so.
  void check_now(const SimFileSystem& files, int depth, const std::string& where) {
    for (size_t kind = 0; kind < kCrashKindsCount; ++kind) {
      const bool seeded = static_cast<CrashKind>(kind) == CrashKind::kRandom;
      for (uint64_t seed = 0; seed < (seeded ? seeds_ : 1); ++seed) {
        const std::string here =
            where + ", kind " + std::to_string(kind) + " seed " + std::to_string(seed);
        auto image = files.crash_image(static_cast<CrashKind>(kind), seed * 31 + 1);
        if (depth > 0) check_recovery(*image, depth, here);
        if (HasFatalFailure()) return;
        check_image(*image, here);
        if (HasFatalFailure()) return;
      }
    }
  }

  /// Crashes at every mutation of recovering `image`, which is left as it was.
  void check_recovery(const SimFileSystem& image, int depth, const std::string& where) {
    auto files = image.crash_image(CrashKind::kKeepAll, 1);
    bool busy = false;
    SimFileSystem* raw = files.get();
    files->set_hook([&, raw](const FileCall& call) -> std::optional<FileFault> {
      if (busy || !is_mutation(call.op) || HasFatalFailure()) return std::nullopt;
      busy = true;
      check_now(*raw, depth - 1, where + ", recovery at " + std::string(file_op_name(call.op)));
      busy = false;
      return std::nullopt;
    });
    Session session(files.get(), durability_);
    files->set_hook(nullptr);
  }

  /// Images before every mutation from now on.
  void watch(int depth) {
    files_.set_hook([this, depth](const FileCall& call) -> std::optional<FileFault> {
      if (busy_ || !is_mutation(call.op) || HasFatalFailure()) return std::nullopt;
      busy_ = true;
      check_now(files_, depth,
                "mutation " + std::to_string(call.mutation) + " " +
                    std::string(file_op_name(call.op)) + " " + call.path);
      busy_ = false;
      return std::nullopt;
    });
  }

  void append(Storage& storage, size_t count) {
    std::vector<Ticket> tickets;
    for (size_t i = 0; i < count; ++i) {
      oracle_.history.push_back(record_text(oracle_.history.size() + 1, salt_));
      auto ticket = storage.append(oracle_.history.back(), storage.generation());
      ASSERT_TRUE(ticket.has_value());
      ASSERT_EQ(ticket->lsn, oracle_.history.size());
      tickets.push_back(*ticket);
    }
    for (const Ticket& ticket : tickets) {
      const Status status = storage.commit(ticket);
      ASSERT_TRUE(status.ok()) << status.to_string();
      if (durability_.sync_on_write) oracle_.durable = ticket.lsn;
    }
  }

  void checkpoint(Storage& storage, std::vector<SegmentId> live) {
    const Lsn after = storage.rotate_log().value();
    oracle_.durable = std::max(oracle_.durable, after);
    std::vector<std::shared_ptr<SegmentFile>> held;
    for (const SegmentId id : live) {
      if (storage.open_segment(id).has_value()) continue;
      auto writer = storage.new_segment(id).value();
      ASSERT_TRUE(writer->begin_section(1).ok());
      ASSERT_TRUE(writer->append(as_bytes_of(segment_text(id))).ok());
      held.push_back(writer->finish().value());
    }
    const std::string catalog = catalog_text(after, live);
    oracle_.roots.push_back(catalog);
    const Status status = storage.publish(catalog, live, after);
    ASSERT_TRUE(status.ok()) << status.to_string();
    oracle_.roots = {catalog};
  }

  SimFileSystem files_;
  Durability durability_;
  Oracle oracle_;
  int salt_ = 0;
  uint64_t seeds_ = 4;
  uint64_t images_ = 0;
  bool busy_ = false;
  std::vector<std::unique_ptr<SimFileSystem>> dying_;
};

TEST_F(StorageCrashTest, FirstStartAndRecoveryOfIt) {
  watch(1);
  Session session(&files_, durability_);
  ASSERT_TRUE(session.status().ok());
  EXPECT_GT(images_, 1000u);
}

TEST_F(StorageCrashTest, CommitsAndCheckpoints) {
  watch(0);
  for (int round = 0; round < 3; ++round) {
    Session session(&files_, durability_);
    ASSERT_TRUE(session.status().ok());
    append(*session, 1);
    append(*session, 3);
    if (round > 0) checkpoint(*session, {1, static_cast<SegmentId>(1 + round)});
    append(*session, 2);
    checkpoint(*session, {static_cast<SegmentId>(1 + round)});
    append(*session, 4);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(images_, 1000u);
}

TEST_F(StorageCrashTest, CrashInsideTheRecoveryThatFollows) {
  seeds_ = 2;
  {
    Session session(&files_, durability_);
    append(*session, 2);
  }
  watch(1);
  Session session(&files_, durability_);
  ASSERT_TRUE(session.status().ok());
  append(*session, 3);
  checkpoint(*session, {4});
  append(*session, 1);
}

TEST_F(StorageCrashTest, KilledProcessThenPowerCutInTheRecovery) {
  // The recovery sees what the dead process wrote and never synced; it must not build on that.
  for (uint64_t n = 1;; ++n) {
    SCOPED_TRACE("killed at mutation " + std::to_string(n));
    auto disk = std::make_unique<SimFileSystem>();
    Oracle oracle;
    disk->crash_at_mutation(n);
    {
      Session session(disk.get(), durability_);
      if (session.status().ok()) {
        for (int i = 0; i < 5; ++i) {
          if (i == 2) {
            const auto after = session->rotate_log();
            if (!after.has_value()) break;
            const std::string catalog = catalog_text(*after, {});
            oracle.roots.push_back(catalog);
            if (!session->publish(catalog, {}, *after).ok()) break;
            oracle.roots = {catalog};
          }
          oracle.history.push_back(record_text(oracle.history.size() + 1, salt_));
          const auto ticket = session->append(oracle.history.back(), session->generation());
          if (!ticket.has_value() || !session->commit(*ticket).ok()) break;
          oracle.durable = ticket->lsn;
        }
      }
    }
    const bool finished = !disk->crashed();
    disk->revive();
    oracle_ = oracle;
    SimFileSystem* raw = disk.get();
    bool busy = false;
    disk->set_hook([&, raw](const FileCall& call) -> std::optional<FileFault> {
      if (busy || !is_mutation(call.op) || HasFatalFailure()) return std::nullopt;
      busy = true;
      check_now(*raw, 0, std::string(file_op_name(call.op)) + " " + call.path);
      busy = false;
      return std::nullopt;
    });
    {
      Session session(raw, durability_);
      ASSERT_TRUE(session.status().ok()) << session.status().to_string();
      oracle_.history.resize(session->last_lsn());
      oracle_.durable = session->last_lsn();  // readers may have seen it
      if (!session->catalog().empty()) oracle_.roots = {std::string(session->catalog())};
      append(*session, 2);
    }
    if (HasFatalFailure() || finished) return;
  }
}

TEST_F(StorageCrashTest, WithoutSyncOnWriteAPrefixSurvives) {
  for (const uint64_t every : {0, 3}) {
    SCOPED_TRACE(every);
    durability_.sync_on_write = false;
    durability_.sync_every_n_writes = every;
    oracle_ = Oracle();
    files_.set_hook(nullptr);
    if (files_.list("store").has_value()) {
      const std::vector<std::string> names = files_.list("store").value();
      for (const std::string& name : names) {
        ASSERT_TRUE(files_.remove("store/" + name).ok());
      }
      ASSERT_TRUE(files_.sync_dir("store").ok());
    }
    watch(0);
    Session session(&files_, durability_);
    append(*session, 5);
    append(*session, 2);
    ASSERT_TRUE(session->sync().ok());
    oracle_.durable = oracle_.history.size();
    append(*session, 4);
    checkpoint(*session, {1});
    append(*session, 3);
    append(*session, 1);
    if (HasFatalFailure()) return;
  }
}

TEST_F(StorageCrashTest, RefusedRecordsNeverComeBack) {
  watch(0);
  Session session(&files_, durability_);
  append(*session, 2);
  for (int round = 0; round < 4; ++round) {
    salt_ = round + 1;
    // A group of four of which some bytes get in, on a disk that is full, or an I/O error. The log
    // is cut by then, so before the refusal is reported its records may still be found.
    const auto hook = [&, round](const FileCall& call) -> std::optional<FileFault> {
      if (busy_) return std::nullopt;
      if (call.op != FileOp::kAppend || call.bytes < 100) return std::nullopt;
      const uint64_t written = round == 0 ? 0 : call.bytes * static_cast<uint64_t>(round) / 4;
      return FileFault{round % 2 == 0 ? storage_full("full") : io_error("EIO"), written};
    };
    files_.set_hook(hook);
    std::vector<Ticket> tickets;
    for (int i = 0; i < 4; ++i) {
      tickets.push_back(
          session->append(record_text(100 + static_cast<Lsn>(i), salt_), session->generation())
              .value());
    }
    const uint64_t generation = session->generation();
    for (const Ticket& ticket : tickets) {
      EXPECT_EQ(session->commit(ticket).code(),
                round % 2 == 0 ? Code::kStorageFull : Code::kIoError);
    }
    EXPECT_EQ(session->generation(), generation + 1);
    EXPECT_EQ(session->append("x", generation).status().code(), Code::kFailedPrecondition);
    EXPECT_EQ(session->last_lsn(), oracle_.history.size());
    watch(0);
    check_now(files_, 1, "after the refusal");
    append(*session, 3);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(images_, 1000u);
}

TEST_F(StorageCrashTest, RandomImagesOfLongRuns) {
  // The push tier's share; a soak only raises the number.
  constexpr uint64_t kRuns = 12;
  for (uint64_t run = 0; run < kRuns; ++run) {
    SCOPED_TRACE("run " + std::to_string(run));
    SimFileSystem* disk = &files_;
    auto owned = std::make_unique<SimFileSystem>();
    disk = owned.get();
    oracle_ = Oracle();
    salt_ = static_cast<int>(run);
    Rng rng(run + 1);
    durability_.sync_on_write = run % 3 != 0;
    durability_.sync_every_n_writes = run % 2 == 0 ? 0 : 4;
    for (int life = 0; life < 4; ++life) {
      {
        Session session(disk, durability_);
        ASSERT_TRUE(session.status().ok()) << session.status().to_string();
        const Lsn last = session->last_lsn();
        ASSERT_GE(last, oracle_.durable);
        oracle_.history.resize(last);
        oracle_.durable = last;  // opening syncs
        for (int step = 0; step < 12; ++step) {
          if (rng.below(6) == 0) {
            checkpoint(*session,
                       {1 + static_cast<SegmentId>(life) * 100 + static_cast<SegmentId>(step)});
          } else {
            append(*session, 1 + rng.below(4));
          }
          if (HasFatalFailure()) return;
          for (int i = 0; i < 6; ++i) {
            auto image = disk->crash_clone(rng.next(), static_cast<uint32_t>(rng.below(101)));
            check_image(*image, "life " + std::to_string(life) + " step " + std::to_string(step));
            if (HasFatalFailure()) return;
          }
        }
        auto next = disk->crash_clone(rng.next(), static_cast<uint32_t>(rng.below(101)));
        // The session's own disk must outlive it.
        dying_.push_back(std::move(owned));
        owned = std::move(next);
        disk = owned.get();
      }
      salt_ += 100;
    }
  }
}

}  // namespace
}  // namespace aionbd
