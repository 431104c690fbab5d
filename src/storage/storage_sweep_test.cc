// The n-th call of the file system fails, for n = 1, 2, ... until all that a store can do is done:
// opened, written to, its log rotated, a segment made, published, cut for a backup, closed; each
// way of failing, once and from then on, from each way a store may be found. Nothing acknowledged
// may be lost, nothing may change its meaning, and when the fault is over the store opens and
// works.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/sanitized.h"
#include "io/sim_file_system.h"
#include "storage/format.h"
#include "storage/storage.h"

namespace aionbd {
namespace {

constexpr const char* kDir = "store";

/// Every record is its own number, so that it is known wherever it is met.
std::string record_of(Lsn lsn) {
  return "record " + std::to_string(lsn);
}

Result<std::unique_ptr<Storage>> open(SimFileSystem& files) {
  StorageOptions options;
  options.dir = kDir;
  options.files = &files;
  options.clock = &system_clock_source();
  return Storage::open(std::move(options));
}

/// What one run of everything was told.
struct Told {
  Status first_error;
  Lsn acknowledged = 0;

  void note(const Status& status) {
    if (first_error.ok()) first_error = status;
  }
};

Status write(Storage& storage, Told& told) {
  const Lsn lsn = storage.last_lsn() + 1;
  ASSIGN_OR_RETURN(const Ticket ticket, storage.append(record_of(lsn), storage.generation()));
  EXPECT_EQ(ticket.lsn, lsn);
  RETURN_IF_ERROR(storage.commit(ticket));
  told.acknowledged = lsn;
  return {};
}

Status make_segment(Storage& storage, SegmentId id, std::vector<SegmentId>& live,
                    std::vector<std::shared_ptr<SegmentFile>>& held) {
  ASSIGN_OR_RETURN(const auto writer, storage.new_segment(id));
  RETURN_IF_ERROR(writer->begin_section(7));
  // Larger than the writer's buffer, so that it reaches the file in pieces.
  RETURN_IF_ERROR(writer->append(as_bytes_of(std::string((1 << 20) + 5000, 's'))));
  ASSIGN_OR_RETURN(auto file, writer->finish());
  held.push_back(std::move(file));
  live.push_back(id);
  return {};
}

Status check_records(Storage& storage, Lsn* last) {
  *last = storage.replay_after();
  return storage.replay([&](Lsn lsn, Bytes record) {
    EXPECT_EQ(lsn, *last + 1);
    EXPECT_EQ(as_text(record), record_of(lsn));
    *last = lsn;
    return Status();
  });
}

/// Goes on after what fails, as an engine does.
Told do_everything(SimFileSystem& files) {
  Told told;
  auto opened = open(files);
  told.note(opened.status());
  if (!opened) return told;
  Storage& storage = **opened;
  Lsn last = 0;
  told.note(check_records(storage, &last));
  std::vector<SegmentId> live;
  std::vector<std::shared_ptr<SegmentFile>> held;
  // The segment of before, if there is one.
  if (auto old = storage.open_segment(1)) {
    held.push_back(*old);
    live.push_back(1);
  } else if (old.error().code() != Code::kNotFound) {
    told.note(old.error());
    return told;  // what cannot be opened must not be dropped from the root
  }
  told.note(write(storage, told));
  const Result<Lsn> rotated = storage.rotate_log();
  told.note(rotated.status());
  told.note(write(storage, told));
  told.note(make_segment(storage, 2, live, held));
  if (rotated) told.note(storage.publish("c", live, *rotated));
  {
    const auto cut = storage.cut();
    told.note(cut.status());
    std::erase(live, SegmentId{1});
    if (rotated) told.note(storage.publish("c", live, *rotated));
  }
  { const auto unfinished = storage.new_segment(3); }
  told.note(write(storage, told));
  told.note(storage.sync());
  held.clear();
  return told;
}

/// How a store may be found.
struct Found {
  const char* name;
  std::unique_ptr<SimFileSystem> files;
  Lsn acknowledged = 0;
};

std::vector<Found> stores() {
  std::vector<Found> out;
  out.push_back({"nothing", std::make_unique<SimFileSystem>()});
  SimFileSystem files;
  Told told;
  {
    auto storage = open(files).value();
    std::vector<SegmentId> live;
    std::vector<std::shared_ptr<SegmentFile>> held;
    EXPECT_TRUE(write(*storage, told).ok());
    EXPECT_TRUE(make_segment(*storage, 1, live, held).ok());
    EXPECT_TRUE(storage->publish("c", live, storage->rotate_log().value()).ok());
    EXPECT_TRUE(write(*storage, told).ok());
    EXPECT_TRUE(write(*storage, told).ok());
    out.push_back({"killed", files.crash_image(CrashKind::kKeepAll, 1), told.acknowledged});
  }
  const std::string last = kDir + ("/" + log_name(2));
  const std::string log = out[1].files->read(last, UINT64_MAX).value();
  auto torn = out[1].files->crash_image(CrashKind::kKeepAll, 1);
  torn->overwrite(last, log.substr(0, log.size() - 8));
  out.push_back({"torn", std::move(torn), told.acknowledged - 1});
  auto debris = out[1].files->crash_image(CrashKind::kKeepAll, 1);
  for (const std::string& name : {log_name(4), segment_name(9), std::string("MANIFEST.tmp")}) {
    EXPECT_TRUE(debris->create(kDir + ("/" + name)).has_value());
  }
  out.push_back({"debris", std::move(debris), told.acknowledged});
  return out;
}

struct Failure {
  const char* name;
  bool (*hits)(FileOp op);
  FileFault fault;
};

std::vector<Failure> failures() {
  const auto any = [](FileOp) { return true; };
  const auto appends = [](FileOp op) { return op == FileOp::kAppend; };
  const auto grows = [](FileOp op) {
    return op == FileOp::kAppend || op == FileOp::kCreate || op == FileOp::kRename;
  };
  return {
      {"EIO", any, {io_error("injected EIO")}},
      {"EIO, synced pages lost", any, {io_error("injected EIO"), 0, false}},
      {"ENOSPC", grows, {storage_full("injected ENOSPC")}},
      {"a short write", appends, {storage_full("injected ENOSPC"), 20}},
  };
}

/// One run with the n-th call failing. Whether there was an n-th call.
bool run(const Found& found, const Failure& failure, uint64_t n, bool sticky) {
  const auto files = found.files->crash_image(CrashKind::kKeepAll, 1);
  uint64_t calls = 0;
  files->set_hook([&](const FileCall& call) -> std::optional<FileFault> {
    if (!failure.hits(call.op)) return std::nullopt;
    ++calls;
    return calls == n || (sticky && calls > n) ? std::optional(failure.fault) : std::nullopt;
  });
  const Told told = do_everything(*files);
  files->set_hook({});
  EXPECT_TRUE(calls >= n || told.first_error.ok()) << told.first_error.to_string();
  const Lsn least = std::max(told.acknowledged, found.acknowledged);
  for (const CrashKind kind : {CrashKind::kKeepAll, CrashKind::kDropAll, CrashKind::kRandom}) {
    const auto image = files->crash_image(kind, n);
    for (const bool again : {false, true}) {
      auto storage = open(*image);
      if (!storage) {
        ADD_FAILURE() << "image " << static_cast<int>(kind) << (again ? ", again: " : ": ")
                      << storage.error().to_string();
        break;
      }
      Lsn last = 0;
      EXPECT_TRUE(check_records(**storage, &last).ok());
      EXPECT_GE(last, least) << "image " << static_cast<int>(kind);
      Told after;
      EXPECT_TRUE(write(**storage, after).ok());
    }
  }
  return calls >= n;
}

TEST(StorageSweepTest, EveryCallMayFail) {
  uint64_t runs = 0;
  for (const Found& found : stores()) {
    for (const Failure& failure : failures()) {
      for (const bool sticky : {false, true}) {
        // Sanitized programs, which are slow, take every fifth call.
        for (uint64_t n = 1;; n += kSanitized ? 5 : 1) {
          SCOPED_TRACE(std::string(found.name) + ", " + failure.name + ", call " +
                       std::to_string(n) + (sticky ? " and all later ones" : ""));
          ++runs;
          if (!run(found, failure, n, sticky) || HasFailure()) break;
        }
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_GT(runs, 200U);
}

}  // namespace
}  // namespace aionbd
