// Reading logs made by hand: every rule of a valid frame broken by itself, with all checksums right
// where they are not the rule; and every way a log may end, told apart as crash or as damage.
#include "storage/log_reader.h"

#include <gtest/gtest.h>

#include "io/sim_file_system.h"

namespace aionbd::log_reader_test {
namespace {

constexpr uint64_t kStore = 42;
constexpr uint64_t kEpoch = uint64_t{7} << 32 | 1234;
constexpr uint64_t kLaterEpoch = uint64_t{8} << 32 | 1234;
constexpr const char* kDir = "store";

using HeaderChange = std::function<void(LogHeader&)>;
using FrameChange = std::function<void(FrameHeader&)>;

/// A log file, frame by frame. What a change makes wrong gets a checksum that fits.
class MadeLog {
 public:
  explicit MadeLog(Lsn first_lsn, const HeaderChange& change = {}) : first_lsn_(first_lsn) {
    LogHeader header;
    header.store_id = kStore;
    header.first_lsn = first_lsn;
    header.epoch = kEpoch;
    if (change) change(header);
    header.checksum =
        checksum_of(header, checksum_seed(header.store_id, header.first_lsn, kSeedLogHeader));
    bytes_ = as_text(bytes_of(header));
    next_lsn_ = first_lsn;
  }

  /// A record that says that all before it is durable.
  MadeLog& record(std::string_view payload, const FrameChange& change = {}) {
    FrameHeader header;
    header.lsn = next_lsn_++;
    header.durable_lsn = header.lsn - 1;
    return frame(header, payload, change);
  }
  MadeLog& mark(FrameType type, const FrameChange& change = {}) {
    FrameHeader header;
    header.type = type;
    header.lsn = header.durable_lsn = next_lsn_ - 1;
    return frame(header, "", change);
  }

  // Damage.
  MadeLog& flip(size_t at) {
    bytes_.at(at) = static_cast<char>(bytes_.at(at) ^ 0x20);
    return *this;
  }
  MadeLog& cut(size_t bytes) {
    bytes_.resize(bytes_.size() - bytes);
    return *this;
  }
  MadeLog& tail(std::string_view bytes) {
    bytes_ += bytes;
    return *this;
  }

  const std::string& bytes() const { return bytes_; }
  /// Where the frame of that number, from 0, begins.
  size_t at(size_t frame) const { return frames_.at(frame); }
  std::string text_of(size_t frame) const {
    const size_t end = frame + 1 == frames_.size() ? bytes_.size() : frames_[frame + 1];
    return bytes_.substr(frames_[frame], end - frames_[frame]);
  }

 private:
  MadeLog& frame(FrameHeader header, std::string_view payload, const FrameChange& change) {
    frames_.push_back(bytes_.size());
    header.payload_bytes = static_cast<uint32_t>(payload.size());
    header.epoch = kEpoch;
    header.payload_checksum =
        checksum(as_bytes_of(payload), checksum_seed(kStore, payload.size(), kSeedPayload));
    if (change) change(header);
    header.checksum = checksum_of(header, checksum_seed(kStore, first_lsn_, bytes_.size()));
    bytes_ += as_text(bytes_of(header));
    bytes_ += payload;
    bytes_.resize(frames_.back() + frame_bytes(payload.size()));
    return *this;
  }

  const Lsn first_lsn_;
  Lsn next_lsn_;
  std::string bytes_;
  std::vector<size_t> frames_;
};

/// The log of most cases: two records, then perhaps more.
MadeLog two_records() {
  return MadeLog(1).record("one").record("two");
}

/// Larger than what is read at a time, so that each has to be read by itself.
std::string large_payload() {
  return std::string(size_t{5} << 20, 'x');
}

class LogReaderTest : public ::testing::Test {
 protected:
  LogReaderTest() { EXPECT_TRUE(files_.make_dirs(kDir).ok()); }

  static std::string path_of(Lsn first_lsn) { return kDir + ("/" + log_name(first_lsn)); }
  void put(const std::string& path, std::string_view bytes) {
    ASSERT_TRUE(files_.create(path).has_value());
    files_.overwrite(path, bytes);
  }
  Result<LogReader> open(std::string_view bytes) {
    put(path_of(1), bytes);
    return LogReader::open(&files_, kDir, kStore, 1);
  }
  static std::vector<Lsn> read_all(LogReader& reader) {
    std::vector<Lsn> out;
    while (true) {
      const auto frame = reader.next().value();
      if (!frame.has_value()) return out;
      out.push_back(frame->header.lsn);
    }
  }

  SimFileSystem files_;
};

// ---- The header of a file -----------------------------------------------------------------------

struct HeaderCase {
  const char* name;
  std::string bytes;
  const char* refused;  // what the message says
};

std::vector<HeaderCase> header_cases() {
  const auto changed = [](const HeaderChange& change) { return MadeLog(1, change).bytes(); };
  return {
      {"empty", "", "log header is cut: 'store/wal-0000000000000001.log' has 0 bytes"},
      {"one byte short", MadeLog(1).cut(1).bytes(), "has 63 bytes"},
      {"zeros", std::string(64, '\0'), "not a log file"},
      {"magic", changed([](LogHeader& h) { h.magic = kSegmentMagic; }), "not a log file"},
      {"flipped bit", MadeLog(1).flip(40).bytes(), "log header checksum differs"},
      {"newer", changed([](LogHeader& h) { h.version = kFormatVersion + 1; }),
       "written by a newer version (format 3)"},
      {"version 0", changed([](LogHeader& h) { h.version = 0; }), "unknown fields"},
      {"reserved", changed([](LogHeader& h) { h.reserved = 1; }), "unknown fields"},
      {"reserved2[0]", changed([](LogHeader& h) { h.reserved2[0] = 1; }), "unknown fields"},
      {"reserved2[1]", changed([](LogHeader& h) { h.reserved2[1] = 1; }), "unknown fields"},
      {"another store", changed([](LogHeader& h) { h.store_id = 43; }), "another store"},
      {"another name", changed([](LogHeader& h) { h.first_lsn = 9; }), "begins with record 9"},
  };
}

TEST_F(LogReaderTest, EveryFieldOfAHeaderIsChecked) {
  for (const HeaderCase& row : header_cases()) {
    SCOPED_TRACE(row.name);
    const Status status = open(row.bytes).status();
    EXPECT_EQ(status.code(), Code::kCorruption);
    EXPECT_NE(status.message().find(row.refused), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("'store/wal-0000000000000001.log'"), std::string::npos);
  }
  EXPECT_EQ(LogReader::open(&files_, kDir, kStore, 2).status().code(), Code::kNotFound);
}

TEST_F(LogReaderTest, AFileAloneIsTakenAtItsWord) {
  put("store/found", MadeLog(9, [](LogHeader& h) { h.store_id = 43; }).bytes());
  const LogReader reader = LogReader::open_alone(&files_, "store/found").value();
  EXPECT_EQ(reader.store_id(), 43U);
  EXPECT_EQ(reader.first_lsn(), 9U);
  EXPECT_EQ(reader.last_lsn(), 8U);
  EXPECT_EQ(reader.epoch(), kEpoch);
  put("store/found", MadeLog(9).flip(40).bytes());
  EXPECT_EQ(LogReader::open_alone(&files_, "store/found").status().code(), Code::kCorruption);
  EXPECT_EQ(LogReader::open_alone(&files_, "store/none").status().code(), Code::kNotFound);
}

// ---- The rules of a frame -----------------------------------------------------------------------

struct FrameCase {
  const char* name;
  MadeLog log;                     // two records, then what is wrong
  const char* problem;             // empty: a clean end
  std::vector<Lsn> salvaged = {};  // the frames that salvage reads behind it
};

std::vector<FrameCase> frame_cases() {
  const auto third = [](const FrameChange& change) { return two_records().record("3333", change); };
  const auto marked = [](const FrameChange& change) {
    return two_records().mark(FrameType::kSeal, change);
  };
  std::vector<FrameCase> out = {
      {"nothing", two_records(), ""},
      {"cut in its header", third({}).cut(frame_bytes(4) - 47), "frame header is cut"},
      {"zeros", two_records().tail(std::string(600, '\0')), "frame header checksum differs"},
      {"flipped bit", third({}).flip(two_records().bytes().size() + 20),
       "frame header checksum differs"},
      {"type 0", third([](FrameHeader& h) { h.type = FrameType{0}; }), "frame type is unknown"},
      {"type 4", third([](FrameHeader& h) { h.type = FrameType{4}; }), "frame type is unknown"},
      {"longer than the file", third([](FrameHeader& h) { h.payload_bytes = 9; }),
       "frame is longer than the file"},
      {"over the limit",
       third([](FrameHeader& h) { h.payload_bytes = static_cast<uint32_t>(kRecordBytesMax) + 1; }),
       "frame is longer than the file"},
      {"longest number", third([](FrameHeader& h) { h.payload_bytes = UINT32_MAX; }),
       "frame is longer than the file"},
      {"cut in its payload", third({}).cut(1), "frame is longer than the file"},
      {"seal with a payload", third([](FrameHeader& h) { h.type = FrameType::kSeal, h.lsn = 2; }),
       "frame has a payload it may not have"},
      {"epoch with a payload", third([](FrameHeader& h) { h.type = FrameType::kEpoch, h.lsn = 2; }),
       "frame has a payload it may not have"},
      {"record again", third([](FrameHeader& h) { h.lsn = 2; }), "frame is out of order"},
      {"record skipped", third([](FrameHeader& h) { h.lsn = 4; }), "frame is out of order", {4}},
      {"seal of a later record",
       marked([](FrameHeader& h) { h.lsn = 3; }),
       "frame is out of order",
       {3}},
      {"seal of an earlier record", marked([](FrameHeader& h) { h.lsn = 1; }),
       "frame is out of order"},
      {"itself durable", third([](FrameHeader& h) { h.durable_lsn = 3; }),
       "frame claims the future durable"},
      {"record of a dead epoch",
       third([](FrameHeader& h) { h.epoch = kLaterEpoch; }),
       "frame is of a dead epoch",
       {3}},
      {"seal of a dead epoch",
       marked([](FrameHeader& h) { h.epoch = kEpoch - 1; }),
       "frame is of a dead epoch",
       {2}},
      {"flipped payload", third({}).flip(two_records().bytes().size() + 50),
       "frame payload checksum differs"},
      {"padding",
       third({}).flip(two_records().bytes().size() + 53),
       "frame padding is not zero",
       {3}},
  };
  // A whole frame where it does not belong: its checksum knows its place, its file and its store.
  const MadeLog moved = MadeLog(1).record("one").record("two and more").record("3333");
  const MadeLog strange = MadeLog(2).record("one").record("two").record("3333");
  for (const auto& [name, log] :
       {std::pair("of another place", &moved), std::pair("of another file", &strange)}) {
    out.push_back({name, two_records().tail(log->text_of(2)), "frame header checksum differs", {}});
  }
  return out;
}

TEST_F(LogReaderTest, EveryRuleOfAFrameEndsTheLog) {
  for (const FrameCase& row : frame_cases()) {
    SCOPED_TRACE(row.name);
    LogReader reader = open(row.log.bytes()).value();
    EXPECT_EQ(read_all(reader), (std::vector<Lsn>{1, 2}));
    EXPECT_EQ(reader.problem(), row.problem);
    EXPECT_EQ(reader.offset(), two_records().bytes().size());
    EXPECT_EQ(reader.last_lsn(), 2U);
    EXPECT_EQ(reader.durable_lsn(), 1U);
    EXPECT_FALSE(reader.next().value().has_value()) << "for good";
    std::vector<Lsn> salvaged;
    while (reader.skip_damage().value()) {
      const std::vector<Lsn> more = read_all(reader);
      ASSERT_FALSE(more.empty()) << "what was found must be given, or salvage never ends";
      salvaged.insert(salvaged.end(), more.begin(), more.end());
    }
    EXPECT_EQ(salvaged, row.salvaged);
  }
}

TEST_F(LogReaderTest, MarksAndLargeRecordsAreRead) {
  const std::string large = large_payload();
  MadeLog log(1);
  log.mark(FrameType::kEpoch, [](FrameHeader& h) { h.epoch = kLaterEpoch; });
  const auto later = [](FrameHeader& h) { h.epoch = kLaterEpoch; };
  log.record(large, later).record("", later).record(large, later).mark(FrameType::kSeal, later);
  LogReader reader = open(log.bytes()).value();
  EXPECT_EQ(read_all(reader), (std::vector<Lsn>{0, 1, 2, 3, 3}));
  EXPECT_EQ(reader.problem(), "");
  EXPECT_EQ(reader.epoch(), kLaterEpoch);
  EXPECT_EQ(reader.durable_lsn(), 3U);
  EXPECT_EQ(reader.offset(), log.bytes().size());
}

TEST_F(LogReaderTest, WhatTheMediumRefusesIsNoDamage) {
  const MadeLog log = two_records();
  for (const FileOp op : {FileOp::kFileSize, FileOp::kRead}) {
    put(path_of(1), log.bytes());
    files_.fail(op, "wal", 1, FileFault{io_error("EIO")}, false);
    EXPECT_EQ(LogReader::open(&files_, kDir, kStore, 1).status().code(), Code::kIoError);
  }
  files_.set_hook({});
  // The file becomes shorter behind what was read of it.
  put(path_of(1), MadeLog(1).record(large_payload()).bytes());
  LogReader reader = LogReader::open(&files_, kDir, kStore, 1).value();
  files_.overwrite(path_of(1), log.bytes());
  const Status status = reader.next().status();
  EXPECT_EQ(status.code(), Code::kIoError);
  EXPECT_NE(status.message().find("became shorter: 'store/wal-0000000000000001.log' at offset 64"),
            std::string::npos)
      << status.message();
}

TEST_F(LogReaderTest, WhatWasRefusedOnceIsReadWhenAskedAgain) {
  put(path_of(1), MadeLog(1).record(large_payload()).record("two").bytes());
  for (uint64_t nth = 1;; ++nth) {  // the first record, the header behind it
    LogReader reader = LogReader::open(&files_, kDir, kStore, 1).value();
    files_.fail(FileOp::kRead, "wal", nth, FileFault{io_error("EIO")}, false);
    std::vector<Lsn> lsns;
    int refused = 0;
    while (lsns.size() < 2) {
      const auto frame = reader.next();
      if (frame.has_value()) {
        ASSERT_TRUE(frame->has_value()) << reader.problem();
        lsns.push_back((*frame)->header.lsn);
      } else {
        ASSERT_EQ(frame.status().code(), Code::kIoError);
        ASSERT_EQ(++refused, 1);
      }
    }
    files_.set_hook({});
    EXPECT_EQ(lsns, (std::vector<Lsn>{1, 2}));
    EXPECT_FALSE(reader.next().value().has_value());
    if (refused == 0) {
      EXPECT_EQ(nth, 3U);
      break;
    }
  }
}

// ---- Salvage ------------------------------------------------------------------------------------

struct SkipCase {
  const char* name;
  MadeLog log;            // damaged in its second frame
  std::vector<Lsn> lsns;  // of the frames read behind the damage
};

std::vector<SkipCase> skip_cases() {
  const auto damaged = [](const FrameChange& change) {
    MadeLog log = MadeLog(1).record("one").record("two").record("three", change).record("four");
    const size_t second = log.at(1);
    return log.flip(second);
  };
  const auto later = [](FrameHeader& h) { h.epoch = kLaterEpoch; };
  return {
      {"the next whole frame", damaged({}), {3, 4}},
      {"a hole of two", damaged([](FrameHeader& h) { h.payload_checksum ^= 1; }), {4}},
      {"no older number", damaged([](FrameHeader& h) { h.lsn = 1; }), {4}},
      {"no unknown type", damaged([](FrameHeader& h) { h.type = FrameType{9}; }), {4}},
      {"no older epoch", damaged([](FrameHeader& h) { h.epoch = 99; }), {4}},
      {"a later epoch, then only it", damaged(later), {3}},
      {"nothing over the limit",
       damaged(
           [](FrameHeader& h) { h.payload_bytes = static_cast<uint32_t>(kRecordBytesMax) + 1; }),
       {4}},
      {"nothing longer than the file",
       damaged([](FrameHeader& h) { h.payload_bytes = uint32_t{1} << 20; }),
       {4}},
      {"nothing that says what cannot be", damaged([](FrameHeader& h) { h.durable_lsn = 3; }), {4}},
      {"no mark with a payload",
       damaged([](FrameHeader& h) { h.type = FrameType::kSeal, h.lsn = h.durable_lsn = 2; }),
       {4}},
      {"a mark",
       MadeLog(1)
           .record("one")
           .record("two")
           .mark(FrameType::kEpoch, later)
           .flip(MadeLog(1).record("one").bytes().size()),
       {2}},
  };
}

TEST_F(LogReaderTest, SalvageGoesOnBehindDamageWithWhatMayFollow) {
  for (const SkipCase& row : skip_cases()) {
    SCOPED_TRACE(row.name);
    LogReader reader = open(row.log.bytes()).value();
    EXPECT_FALSE(reader.skip_damage().value()) << "nothing was met yet";
    EXPECT_EQ(read_all(reader), std::vector<Lsn>{1});
    ASSERT_TRUE(reader.skip_damage().value());
    EXPECT_EQ(read_all(reader), row.lsns);
  }
}

TEST_F(LogReaderTest, WhatTheMediumRefusesEndsNoSalvage) {
  // The damage is as large as what is read at a time, and so is what follows.
  put(path_of(1), MadeLog(1)
                      .record("one")
                      .record(large_payload(), [](FrameHeader& h) { h.payload_checksum ^= 1; })
                      .record(large_payload())
                      .bytes());
  for (uint64_t nth = 1;; ++nth) {
    LogReader reader = LogReader::open(&files_, kDir, kStore, 1).value();
    EXPECT_EQ(read_all(reader), std::vector<Lsn>{1});
    files_.fail(FileOp::kRead, "wal", nth, FileFault{io_error("EIO")}, false);
    Result<bool> skipped = reader.skip_damage();
    files_.set_hook({});
    if (skipped.has_value()) {
      EXPECT_EQ(nth, 3U) << "one of headers, one of the whole frame";
      break;
    }
    EXPECT_EQ(skipped.status().code(), Code::kIoError);
    EXPECT_FALSE(reader.next().value().has_value()) << "still at the damage";
    ASSERT_TRUE(reader.skip_damage().value());
    EXPECT_EQ(read_all(reader), std::vector<Lsn>{3});
  }
}

TEST_F(LogReaderTest, SalvageGoesBackFromAProofThatIsFarBehind) {
  const auto group = [](FrameHeader& h) { h.durable_lsn = 1; };
  const MadeLog log = MadeLog(1)
                          .record("one")
                          .record("two")
                          .record("three", group)
                          .record(large_payload(), group)
                          .record("five");
  LogReader reader = open(MadeLog(log).flip(log.at(1)).bytes()).value();
  EXPECT_EQ(read_all(reader), std::vector<Lsn>{1});
  EXPECT_EQ(reader.find_proof(2).value(), log.at(4));
  ASSERT_TRUE(reader.skip_damage().value());
  EXPECT_EQ(read_all(reader), (std::vector<Lsn>{3, 4, 5}));
}

TEST_F(LogReaderTest, AFileWithoutItsHeaderIsReadFromItsFirstFrame) {
  put(path_of(1), two_records().flip(3).bytes());
  EXPECT_FALSE(LogReader::open(&files_, kDir, kStore, 1).has_value());
  LogReader reader = LogReader::open_headless(&files_, kDir, kStore, 1).value();
  EXPECT_TRUE(read_all(reader).empty());
  EXPECT_EQ(reader.problem(), "log header is damaged");
  ASSERT_TRUE(reader.skip_damage().value());
  EXPECT_EQ(read_all(reader), (std::vector<Lsn>{1, 2}));
  put(path_of(1), two_records().bytes().substr(0, 63));
  EXPECT_EQ(LogReader::open_headless(&files_, kDir, kStore, 1).status().code(), Code::kCorruption);
  EXPECT_EQ(LogReader::open_headless(&files_, kDir, kStore, 2).status().code(), Code::kNotFound);
}

// ---- Crash or damage ----------------------------------------------------------------------------

struct ScanCase {
  const char* name;
  std::vector<std::pair<Lsn, std::string>> files;  // by the number in the name
  Lsn replay_after = 0;
  Lsn durable_floor = 0;
  // Either the log is refused with this in the message, or (null) it ends as told.
  const char* refused = nullptr;
  Lsn last_lsn = 0;
  uint64_t discarded = 0;
  bool debris = false;
};

/// What is not where it has to be.
std::vector<ScanCase> missing_cases() {
  const std::string one = two_records().bytes();  // records 1 and 2
  const std::string three = MadeLog(3).record("three").bytes();
  return {
      {.name = "no file", .files = {}, .refused = "log is missing: 'store' has no log file"},
      {.name = "no beginning",
       .files = {{3, three}},
       .refused = "missing its beginning: 'store/wal-0000000000000003.log' is the first, record 1"},
      {.name = "no record 0",
       .files = {{0, MadeLog(0).bytes()}},
       .refused = "missing its beginning: 'store/wal-0000000000000000.log'"},
      {.name = "no middle",
       .files = {{1, one}, {5, MadeLog(5).record("five").bytes()}},
       .refused = "log has a gap: 'store/wal-0000000000000005.log' does not follow record 2"},
      {.name = "a file twice",
       .files = {{1, one}, {2, MadeLog(2).record("two").bytes()}},
       .refused = "log has a gap: 'store/wal-0000000000000002.log' does not follow record 2"},
      {.name = "all there", .files = {{1, one}, {3, three}}, .last_lsn = 3},
      {.name = "what is not needed is not read",
       .files = {{1, "garbage"}, {3, three}},
       .replay_after = 2,
       .durable_floor = 2,
       .last_lsn = 3},
      {.name = "needed in part",
       .files = {{1, one}, {3, three}},
       .replay_after = 1,
       .durable_floor = 1,
       .last_lsn = 3},
      {.name = "ends before what was durable",
       .files = {{1, one}},
       .durable_floor = 3,
       .refused = "'store/wal-0000000000000001.log' ends with record 2, the manifest says 3"},
      {.name = "ends with what was durable",
       .files = {{1, one}},
       .durable_floor = 2,
       .last_lsn = 2},
  };
}

/// A last file that a crash may have left half made.
std::vector<ScanCase> debris_cases() {
  const std::string one = two_records().bytes();
  const std::string header = MadeLog(3).bytes();
  return {
      {.name = "header only", .files = {{1, one}, {3, header}}, .last_lsn = 2},
      {.name = "empty", .files = {{1, one}, {3, ""}}, .last_lsn = 2, .debris = true},
      {.name = "half a header",
       .files = {{1, one}, {3, header.substr(0, 30)}},
       .last_lsn = 2,
       .debris = true},
      {.name = "header of zeros",
       .files = {{1, one}, {3, std::string(64, '\0')}},
       .last_lsn = 2,
       .debris = true},
      {.name = "header of another store",
       .files = {{1, one}, {3, MadeLog(3, [](LogHeader& h) { h.store_id = 1; }).bytes()}},
       .last_lsn = 2,
       .debris = true},
      {.name = "empty, but its record was durable",
       .files = {{1, one}, {3, ""}},
       .durable_floor = 3,
       .refused = "log header is cut: 'store/wal-0000000000000003.log' has 0 bytes"},
      {.name = "no header, but a frame",
       .files = {{1, one}, {3, MadeLog(3).record("three").flip(0).bytes()}},
       .refused = "not a log file: 'store/wal-0000000000000003.log' at offset 0"},
      {.name = "header of zeros, and one byte",
       .files = {{1, one}, {3, std::string(65, '\0')}},
       .refused = "not a log file: 'store/wal-0000000000000003.log' at offset 0"},
      {.name = "empty, not the last",
       .files = {{1, ""}, {3, header}},
       .refused = "log header is cut: 'store/wal-0000000000000001.log' has 0 bytes"},
      {.name = "only debris", .files = {{1, ""}}, .last_lsn = 0, .debris = true},
  };
}

/// A bad frame: record 2 begins at offset 120, its payload at 168, record 3 at 176.
std::vector<ScanCase> tail_cases() {
  const std::string torn_two = two_records().cut(1).bytes();
  const auto behind = [](const FrameChange& change) {
    MadeLog log = MadeLog(1).record("one").record("two").record("three", change);
    const size_t payload = log.at(1) + sizeof(FrameHeader);
    return log.flip(payload).bytes();  // of the second
  };
  const auto marked = [](const FrameChange& change) {
    MadeLog log = MadeLog(1).record("one").record("two").mark(FrameType::kEpoch, change);
    const size_t payload = log.at(1) + sizeof(FrameHeader);
    return log.flip(payload).bytes();
  };
  std::string bad_sum = behind({});
  bad_sum[176 + 40] ^= 1;
  const auto older = [](FrameHeader& h) { h.durable_lsn = 1; };
  constexpr const char* kAt = ": 'store/wal-0000000000000001.log' at offset 120, record 2";
  static const std::string kProof =
      std::string("the frame at offset 176 says it was durable: frame payload checksum differs") +
      kAt;
  static const std::string kManifest =
      std::string("the manifest says it was durable: frame is longer than the file") + kAt;
  static const std::string kMiddle =
      std::string("log is damaged before its last file: frame is longer than the file") + kAt;
  return {
      {.name = "torn", .files = {{1, torn_two}}, .last_lsn = 1, .discarded = 55},
      {.name = "torn behind what the manifest says",
       .files = {{1, torn_two}},
       .durable_floor = 1,
       .last_lsn = 1,
       .discarded = 55},
      {.name = "zeros behind the end",
       .files = {{1, two_records().tail(std::string(4096, '\0')).bytes()}},
       .last_lsn = 2,
       .discarded = 4096},
      {.name = "damage the manifest knows",
       .files = {{1, torn_two}},
       .durable_floor = 2,
       .refused = kManifest.c_str()},
      {.name = "damage before the last file",
       .files = {{1, torn_two}, {2, MadeLog(2).record("two").bytes()}},
       .refused = kMiddle.c_str()},
      {.name = "damage a later frame knows", .files = {{1, behind({})}}, .refused = kProof.c_str()},
      {.name = "damage a frame of a later epoch knows",
       .files = {{1, behind([](FrameHeader& h) { h.durable_lsn = 1, h.epoch = kLaterEpoch; })}},
       .refused = kProof.c_str()},
      {.name = "a later frame of the same group",
       .files = {{1, behind(older)}},
       .last_lsn = 1,
       .discarded = 112},
      {.name = "a later frame that is damaged, too",
       .files = {{1, bad_sum}},
       .last_lsn = 1,
       .discarded = 112},
      {.name = "a later frame that says what cannot be",
       .files = {{1, behind([](FrameHeader& h) { h.durable_lsn = 4; })}},
       .last_lsn = 1,
       .discarded = 112},
      {.name = "a later frame of unknown type",
       .files = {{1, behind([](FrameHeader& h) { h.type = FrameType{9}; })}},
       .last_lsn = 1,
       .discarded = 112},
      // It is what an opening writes over a cut tail; it proves no record of before.
      {.name = "an epoch that begins",
       .files = {{1, marked([](FrameHeader& h) { h.durable_lsn = 1, h.epoch = kLaterEpoch; })}},
       .last_lsn = 1,
       .discarded = 104},
      {.name = "an epoch that knows it was durable",
       .files = {{1, marked([](FrameHeader& h) { h.epoch = kLaterEpoch; })}},
       .refused = kProof.c_str()},
  };
}

class ScanTest : public LogReaderTest {
 protected:
  void check(const ScanCase& row) {
    SCOPED_TRACE(row.name);
    const auto files = std::make_unique<SimFileSystem>();
    ASSERT_TRUE(files->make_dirs(kDir).ok());
    std::vector<Lsn> names;
    for (const auto& [first_lsn, bytes] : row.files) {
      ASSERT_TRUE(files->create(path_of(first_lsn)).has_value());
      files->overwrite(path_of(first_lsn), bytes);
      names.push_back(first_lsn);
    }
    const auto scan =
        scan_log(files.get(), kDir, kStore, names, row.replay_after, row.durable_floor);
    if (row.refused != nullptr) {
      ASSERT_FALSE(scan.has_value());
      EXPECT_EQ(scan.error().code(), Code::kCorruption);
      EXPECT_NE(scan.error().message().find(row.refused), std::string::npos)
          << scan.error().message();
      return;
    }
    ASSERT_TRUE(scan.has_value()) << scan.error().to_string();
    EXPECT_EQ(scan->last_lsn, row.last_lsn);
    EXPECT_EQ(scan->discarded_bytes, row.discarded);
    EXPECT_EQ(scan->last_is_debris, row.debris);
    EXPECT_EQ(scan->torn_why.empty(), row.discarded == 0);
    EXPECT_GE(scan->durable_lsn, row.durable_floor);
    const uint64_t end = row.debris ? 0 : row.files.back().second.size() - row.discarded;
    EXPECT_EQ(scan->end_offset, end);
    std::vector<Lsn> applied;
    const Status replayed = replay_log(files.get(), kDir, kStore, *scan, [&](Lsn lsn, Bytes) {
      applied.push_back(lsn);
      return Status();
    });
    EXPECT_TRUE(replayed.ok()) << replayed.to_string();
    std::vector<Lsn> wanted;
    for (Lsn lsn = row.replay_after + 1; lsn <= row.last_lsn; ++lsn) wanted.push_back(lsn);
    EXPECT_EQ(applied, wanted);
  }
};

TEST_F(ScanTest, WhatIsMissingIsNamed) {
  for (const ScanCase& row : missing_cases()) check(row);
}
TEST_F(ScanTest, AHalfMadeFileIsNoDamage) {
  for (const ScanCase& row : debris_cases()) check(row);
}
TEST_F(ScanTest, ATornTailIsToldFromDamage) {
  for (const ScanCase& row : tail_cases()) check(row);
}

TEST_F(ScanTest, WhatTheMediumRefusesIsNoDamage) {
  put(path_of(1), two_records().cut(1).bytes());
  put(path_of(2), MadeLog(2).bytes());
  // Of each file its size and its bytes, whichever call it is.
  for (const FileOp op : {FileOp::kFileSize, FileOp::kRead}) {
    for (uint64_t nth = 1;; ++nth) {
      files_.fail(op, "wal", nth, FileFault{io_error("EIO")}, false);
      const Status status = scan_log(&files_, kDir, kStore, {1}, 0, 0).status();
      if (status.ok()) {
        EXPECT_GT(nth, 1U);
        break;
      }
      EXPECT_EQ(status.code(), Code::kIoError) << status.to_string();
    }
  }
}

TEST_F(ScanTest, ALongLogIsRefusedByTheMediumAnywhere) {
  // Records that are read each by itself, and a torn one, behind which a proof is looked for.
  put(path_of(1),
      MadeLog(1).record(large_payload()).record("two").record(large_payload()).cut(1).bytes());
  const auto scanned = [&] { return scan_log(&files_, kDir, kStore, {1}, 0, 0); };
  const LogScan scan = scanned().value();
  EXPECT_EQ(scan.last_lsn, 2U);
  const auto replayed = [&] {
    return replay_log(&files_, kDir, kStore, scan, [](Lsn, Bytes) { return Status(); });
  };
  // The header, the first record, what follows it; the scan also the torn one to its end.
  for (const auto& [reads, run] :
       {std::pair<uint64_t, std::function<Status()>>(4, [&] { return scanned().status(); }),
        std::pair<uint64_t, std::function<Status()>>(3, replayed)}) {
    for (uint64_t nth = 1; nth <= reads; ++nth) {
      files_.fail(FileOp::kRead, "wal", nth, FileFault{io_error("EIO")}, false);
      EXPECT_EQ(run().code(), Code::kIoError) << nth << " of " << reads;
    }
    files_.fail(FileOp::kRead, "wal", reads + 1, FileFault{io_error("EIO")}, false);
    EXPECT_TRUE(run().ok()) << reads;
  }
}

TEST_F(ScanTest, AReplayOfALogThatChangedIsRefused) {
  const MadeLog log = two_records();
  put(path_of(1), log.bytes());
  const LogScan scan = scan_log(&files_, kDir, kStore, {1}, 0, 0).value();
  const auto replay = [&] {
    return replay_log(&files_, kDir, kStore, scan, [](Lsn, Bytes) { return Status(); });
  };
  const auto refuse = [](Lsn lsn, Bytes) { return lsn == 2 ? corruption("no") : Status(); };
  EXPECT_EQ(replay_log(&files_, kDir, kStore, scan, refuse).message(), "no");
  files_.overwrite(path_of(1), log.bytes().substr(0, log.at(1)));
  EXPECT_NE(replay().message().find("record 2 can no longer be read"), std::string::npos);
  files_.overwrite(path_of(1), "");
  EXPECT_EQ(replay().code(), Code::kCorruption);
  files_.overwrite(path_of(1), log.bytes());
  files_.fail(FileOp::kRead, "wal", 1, FileFault{io_error("EIO")}, false);
  EXPECT_EQ(replay().code(), Code::kIoError);
}

}  // namespace
}  // namespace aionbd::log_reader_test
