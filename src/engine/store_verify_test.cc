// verify_store and describe_file on real stores, whole and damaged.
#include <algorithm>

#include "aionbd/store.h"
#include "engine/test_store.h"

namespace aionbd {
namespace {

class StoreVerifyTest : public StoreTest {
 protected:
  VerifyReport verify() const {
    auto report = verify_store(dir_);
    EXPECT_TRUE(report.has_value()) << report.status().to_string();
    return report.has_value() ? *report : VerifyReport();
  }
  static const StoreFinding* damage_in(const VerifyReport& report, const std::string& file) {
    for (const StoreFinding& finding : report.findings) {
      if (finding.kind == FindingKind::kDamage && finding.file == file) return &finding;
    }
    return nullptr;
  }
};

TEST_F(StoreVerifyTest, WholeStoreIsCleanAndUntouched) {
  const auto before = bytes_of_dir(dir_);
  uint64_t last_done = 0;
  uint64_t last_total = 0;
  const auto report = verify_store(dir_, [&](uint64_t done, uint64_t total) {
    EXPECT_GE(total, done);
    last_done = done;
    last_total = total;
    return true;
  });
  ASSERT_TRUE(report.has_value());
  EXPECT_TRUE(report->clean());
  EXPECT_TRUE(report->findings.empty());
  EXPECT_EQ(report->collections, 2u);  // the third is in the log
  EXPECT_GE(report->segments, 3u);
  EXPECT_GE(report->indexes, 2u) << "the test needs a vector and a field index";
  EXPECT_EQ(report->rows_live, kTestRows - 2 + 300);
  EXPECT_EQ(report->log_records, 22u);
  EXPECT_EQ(last_done, last_total);
  EXPECT_EQ(bytes_of_dir(dir_), before);
}

TEST_F(StoreVerifyTest, OpenStoreIsRefused) {
  const auto database = Database::open(options_for(dir_)).value();
  EXPECT_EQ(verify_store(dir_).status().code(), Code::kInUse);
  EXPECT_EQ(verify_store(root_ + "/nothing").status().code(), Code::kNotFound);
  EXPECT_EQ(verify_store(root_).status().code(), Code::kNotFound);
}

TEST_F(StoreVerifyTest, StopsWhenAsked) {
  const auto report = verify_store(dir_, [](uint64_t, uint64_t) { return false; });
  EXPECT_EQ(report.status().code(), Code::kUnavailable);
}

// In every file of the store, a flipped bit at the start, the middle and the end is found, in that
// file.
TEST_F(StoreVerifyTest, FlippedBitsAreFoundInEveryFile) {
  std::vector<std::string> all = names(".seg");
  for (const std::string& name : names(".log")) all.push_back(name);
  all.push_back("MANIFEST");
  ASSERT_GE(all.size(), 6u);
  for (const std::string& name : all) {
    const uint64_t size = std::filesystem::file_size(file(name));
    for (const uint64_t offset : {uint64_t{3}, uint64_t{20}, size / 2, size - 70, size - 5}) {
      SCOPED_TRACE(name + " at " + std::to_string(offset));
      flip(file(name), offset);
      const VerifyReport report = verify();
      // A log's last frame is the seal: without it nothing says that there was one, and no record
      // is in doubt.
      const bool in_seal = name.ends_with(".log") && offset == size - 5;
      EXPECT_EQ(report.clean(), in_seal);
      EXPECT_EQ(damage_in(report, name) == nullptr, in_seal);
      EXPECT_FALSE(report.findings.empty());
      flip(file(name), offset);
    }
  }
  EXPECT_TRUE(verify().clean());
}

TEST_F(StoreVerifyTest, DamagedBlocksAreNamedWithTheirOffsets) {
  const std::string name = names(".seg").front();
  ASSERT_GT(std::filesystem::file_size(file(name)), 4u * 65536);
  flip(file(name), 65536 + 100);
  flip(file(name), 3 * 65536 + 100);
  const VerifyReport report = verify();
  ASSERT_EQ(report.damage_count, 2u);
  EXPECT_EQ(report.findings[0].offset, 65536u);
  EXPECT_EQ(report.findings[1].offset, 3u * 65536);
  EXPECT_EQ(report.findings[0].file, name);
}

TEST_F(StoreVerifyTest, CutAndMissingFilesAreFound) {
  for (const std::string& name : names(".seg")) {
    SCOPED_TRACE(name);
    const std::string bytes = read(file(name));
    for (const size_t size : {size_t{0}, size_t{10}, size_t{100}, bytes.size() - 1}) {
      write(file(name), bytes.substr(0, size));
      const VerifyReport report = verify();
      EXPECT_NE(damage_in(report, name), nullptr) << size;
    }
    std::filesystem::remove(file(name));
    const VerifyReport report = verify();
    ASSERT_NE(damage_in(report, name), nullptr);
    EXPECT_NE(damage_in(report, name)->what.find("missing"), std::string::npos);
    write(file(name), bytes);
  }
  for (const std::string& name : names(".log")) {
    const std::string bytes = read(file(name));
    std::filesystem::remove(file(name));
    EXPECT_FALSE(verify().clean()) << name;
    write(file(name), bytes);
  }
  std::filesystem::remove(file("MANIFEST"));
  const VerifyReport report = verify();
  EXPECT_NE(damage_in(report, "MANIFEST"), nullptr);
  EXPECT_EQ(report.damage_count, 1u) << "the other files are whole by their own word";
}

TEST_F(StoreVerifyTest, TornTailAndLeftoversAreNotesOnly) {
  // Cut into the last frame before the seal, as a crash may: without the seal nothing says that it
  // was durable. (The manifest's word covers only what a checkpoint saw.)
  const std::string log = names(".log").back();
  const std::string bytes = read(file(log));
  write(file(log), bytes + std::string(24, 'j'));
  write(file("MANIFEST.tmp"), "half");
  write(file("00000000000000ff.seg"), "orphan");
  write(file("notes.txt"), "mine");
  const VerifyReport report = verify();
  EXPECT_TRUE(report.clean());
  EXPECT_EQ(report.notes_count, 4u);
}

TEST_F(StoreVerifyTest, FileOfAnotherStoreIsFound) {
  const std::string other = root_ + "/other";
  fill(other);
  const std::string name = names(".seg").front();
  std::filesystem::copy_file(other + "/" + name, file(name),
                             std::filesystem::copy_options::overwrite_existing);
  const VerifyReport report = verify();
  const StoreFinding* finding = damage_in(report, name);
  ASSERT_NE(finding, nullptr);
  EXPECT_NE(finding->what.find("another store"), std::string::npos);
}

// ---- describe_file ------------------------------------------------------------------------------

/// Counts what it is shown, and keeps the texts.
class Recorder final : public FileVisitor {
 public:
  void object(std::string_view part, std::span<const FileField> fields) override {
    for (const FileField& field : fields) {
      values[std::string(part) + "." + std::string(field.name)] = field.value;
    }
  }
  void begin_list(std::string_view part) override { list = part; }
  void item(std::span<const FileField> fields) override {
    ++items[list];
    EXPECT_FALSE(fields.empty());
  }
  void end_list() override {}

  std::string list;
  std::map<std::string, size_t> items;
  std::map<std::string, Value> values;
};

TEST_F(StoreVerifyTest, EveryFileCanBeDescribed) {
  std::map<std::string, size_t> kinds;
  for (const std::string& name : names(".seg")) {
    Recorder seen;
    ASSERT_TRUE(describe_file(file(name), seen).ok());
    EXPECT_GE(seen.items["sections"], 1u);
    ++kinds[std::get<std::string>(seen.values["content.kind"].data())];
  }
  EXPECT_GE(kinds["segment"], 3u);
  EXPECT_GE(kinds["vector index"], 1u);
  EXPECT_GE(kinds["field index"], 1u);
  EXPECT_EQ(kinds.count("unknown"), 0u);
  Recorder manifest;
  ASSERT_TRUE(describe_file(file("MANIFEST"), manifest).ok());
  EXPECT_EQ(manifest.items["collections"], 2u);
  EXPECT_EQ(manifest.items["files"], names(".seg").size());
  Recorder log;
  ASSERT_TRUE(describe_file(file(names(".log").back()), log).ok());
  EXPECT_GE(log.items["frames"], 23u);  // 22 records and the seal
}

TEST_F(StoreVerifyTest, DamagedFilesAreDescribedAsFarAsTheyGo) {
  const std::string segment = file(names(".seg").front());
  flip(segment, 65536 * 2 + 7);
  Recorder seen;
  EXPECT_EQ(describe_file(segment, seen).code(), Code::kCorruption);
  EXPECT_EQ(seen.values["content.damaged_blocks"], Value(1));
  EXPECT_GE(seen.items["sections"], 4u);
  flip(segment, 1);  // not even the mark is right
  Recorder raw;
  EXPECT_EQ(describe_file(segment, raw).code(), Code::kCorruption);
  EXPECT_EQ(raw.values.count("trailer.data_bytes"), 1u);
  const std::string log = file(names(".log").back());
  flip(log, std::filesystem::file_size(log) / 2);
  Recorder half;
  EXPECT_EQ(describe_file(log, half).code(), Code::kCorruption);
  EXPECT_GT(half.items["frames"], 2u);
  EXPECT_LT(half.items["frames"], 22u);
}

TEST_F(StoreVerifyTest, HostileFilesGetAnAnswer) {
  const std::vector<std::string> texts = {
      "",          "A",         "AIONSEG\n",
      "AIONWAL\n", "AIONMAN\n", "hello, I am a text file of some length, not a store's"};
  for (const std::string& text : texts) {
    write(root_ + "/hostile", text);
    Recorder seen;
    EXPECT_EQ(describe_file(root_ + "/hostile", seen).code(), Code::kCorruption) << text;
  }
  Recorder seen;
  EXPECT_EQ(describe_file(root_ + "/nothing", seen).code(), Code::kNotFound);
  // Every byte of a manifest, flipped or missing.
  const std::string bytes = read(file("MANIFEST"));
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string bad = bytes;
    bad[i] = static_cast<char>(bad[i] ^ 0xFF);
    write(root_ + "/hostile", bad);
    EXPECT_EQ(describe_file(root_ + "/hostile", seen).code(), Code::kCorruption) << i;
    write(root_ + "/hostile", bytes.substr(0, i));
    EXPECT_EQ(describe_file(root_ + "/hostile", seen).code(), Code::kCorruption) << i;
  }
}

}  // namespace
}  // namespace aionbd
