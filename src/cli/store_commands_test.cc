// verify, inspect, repair, backup and restore as a user runs them: exit codes and what is printed.
#include <fstream>

#include "aionbd/database.h"
#include "cli/command.h"
#include "cli/program.h"
#include "cli/store_report.h"
#include "cli/test_files.h"

namespace aionbd {
namespace {

class StoreCommandsTest : public TestFiles {
 protected:
  StoreCommandsTest() {
    DatabaseOptions options;
    options.data_dir = path("data");
    options.search_threads = 1;
    auto database = Database::open(options).value();
    CollectionOptions collection_options;
    collection_options.dimension = 4;
    const auto docs = database->create_collection("docs", collection_options).value();
    std::vector<Point> points;
    for (uint64_t i = 0; i < 5000; ++i) {
      points.push_back({i, {1, 2, 3, static_cast<float>(i)}, {{"n", static_cast<int64_t>(i)}}});
    }
    EXPECT_TRUE(docs->upsert(points).has_value());
    EXPECT_TRUE(database->checkpoint().ok());
  }

  /// Runs the program; what it prints to standard output is in `printed_`.
  int run(std::vector<std::string> arguments) {
    testing::internal::CaptureStdout();
    const int code = run_program(std::move(arguments));
    printed_ = testing::internal::GetCapturedStdout();
    return code;
  }
  bool says(std::string_view text) const { return printed_.find(text) != std::string::npos; }

  std::string a_file(std::string_view suffix) const {
    for (const auto& entry : std::filesystem::directory_iterator(path("data"))) {
      const std::string name = entry.path().filename().string();
      if (name.ends_with(suffix)) return "data/" + name;
    }
    return "";
  }
  void flip(const std::string& name, size_t at) const {
    std::string bytes = read_bytes(name);
    ASSERT_LT(at, bytes.size());
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    write(name, bytes);
  }

  std::string printed_;
};

TEST_F(StoreCommandsTest, VerifyTellsCleanFromDamaged) {
  EXPECT_EQ(run({"verify", path("data")}), kExitOk);
  EXPECT_TRUE(says("nothing is damaged")) << printed_;
  EXPECT_TRUE(says("5,000 rows")) << printed_;
  const std::string segment = a_file(".seg");
  flip(segment, 65536 + 17);
  EXPECT_EQ(run({"verify", path("data"), "--quiet"}), kExitDamaged);
  EXPECT_TRUE(says("damaged  " + segment.substr(5) + " at offset 65536: ")) << printed_;
  EXPECT_EQ(run({"verify", path("data"), "--json"}), kExitDamaged);
  EXPECT_TRUE(says("\"offset\":65536")) << printed_;
  EXPECT_TRUE(says("\"clean\":false")) << printed_;
  EXPECT_EQ(run({"verify", path("nothing")}), kExitUsage);
  EXPECT_EQ(run({"verify"}), kExitUsage);
}

TEST_F(StoreCommandsTest, VerifyOfAnOpenStoreExits75) {
  DatabaseOptions options;
  options.data_dir = path("data");
  const auto database = Database::open(options).value();
  EXPECT_EQ(run({"verify", path("data")}), kExitInUse);
  EXPECT_EQ(run({"repair", path("data"), "--out", path("out")}), kExitInUse);
  EXPECT_EQ(run({"backup", "--data-dir", path("data"), "--to", path("out")}), kExitInUse);
}

TEST_F(StoreCommandsTest, InspectShowsEveryKindOfFile) {
  EXPECT_EQ(run({"inspect", path("data/MANIFEST")}), kExitOk);
  EXPECT_TRUE(says("docs")) << printed_;
  EXPECT_EQ(run({"inspect", path(a_file(".seg"))}), kExitOk);
  EXPECT_TRUE(says("name=values")) << printed_;
  EXPECT_EQ(run({"inspect", path(a_file(".log")), "--json"}), kExitOk);
  EXPECT_TRUE(says("\"frames\":[")) << printed_;
  EXPECT_TRUE(says("\"error\":null")) << printed_;
  flip(a_file(".seg"), 100);
  EXPECT_EQ(run({"inspect", path(a_file(".seg")), "--json"}), kExitDamaged);
  EXPECT_TRUE(says("\"damaged_blocks\":1")) << printed_;
  write("text", "hello\x1b[31m");
  EXPECT_EQ(run({"inspect", path("text")}), kExitDamaged);
  EXPECT_EQ(run({"inspect", path("nothing")}), kExitUsage);
  EXPECT_EQ(run({"inspect", "settings"}), kExitOk);
}

TEST_F(StoreCommandsTest, RepairSavesTheRest) {
  EXPECT_EQ(run({"repair", path("data"), "--out", path("copy")}), kExitOk);
  EXPECT_TRUE(says("collection docs: 5,000 rows kept, 0 lost")) << printed_;
  flip(a_file(".seg"), 65536 + 17);
  EXPECT_EQ(run({"repair", path("data"), "--out", path("saved")}), kExitDamaged);
  EXPECT_TRUE(says("lost, ids ")) << printed_;
  EXPECT_EQ(run({"verify", path("saved")}), kExitOk);
  EXPECT_EQ(run({"repair", path("data"), "--out", path("saved")}), kExitUsage);
}

TEST_F(StoreCommandsTest, BackupAndRestore) {
  EXPECT_EQ(run({"backup", "--data-dir", path("data"), "--to", path("backups")}), kExitOk);
  EXPECT_EQ(run({"backup", "--data-dir", path("data"), "--to", path("backups"), "--json"}),
            kExitOk);
  EXPECT_TRUE(says("\"number\":2")) << printed_;
  EXPECT_EQ(run({"restore", path("backups"), "--list"}), kExitOk);
  EXPECT_TRUE(says("backup 2: ")) << printed_;
  EXPECT_EQ(run({"restore", path("backups"), "--data-dir", path("new")}), kExitOk);
  EXPECT_EQ(run({"verify", path("new")}), kExitOk);
  EXPECT_EQ(run({"restore", path("backups"), "--data-dir", path("new")}), kExitUsage);
  EXPECT_EQ(run({"restore", path("backups"), "--data-dir", path("new"), "--replace"}), kExitOk);
  EXPECT_TRUE(exists("new.replaced"));
  EXPECT_EQ(run({"restore", path("backups")}), kExitUsage);
  EXPECT_EQ(
      run({"backup", "--data-dir", path("data"), "--to", path("backups"), "--keep", "2", "--json"}),
      kExitOk);
  EXPECT_TRUE(says("\"number\":3")) << printed_;
  EXPECT_TRUE(says("\"removed\":1,")) << printed_;
  EXPECT_EQ(run({"backup", "--data-dir", path("data"), "--to", path("backups"), "--keep", "1"}),
            kExitOk);
  EXPECT_TRUE(says("older backups removed: 2, ")) << printed_;
  EXPECT_EQ(run({"restore", path("backups"), "--number", "3", "--data-dir", path("gone")}),
            kExitUsage);
  EXPECT_EQ(run({"restore", path("backups"), "--data-dir", path("kept")}), kExitOk);
}

TEST_F(StoreCommandsTest, BackupWantsADirectoryOrAServer) {
  EXPECT_EQ(run({"backup"}), kExitUsage);
  EXPECT_EQ(run({"backup", "--data-dir", path("data")}), kExitUsage);
  EXPECT_EQ(run({"backup", "--to", path("out")}), kExitUsage);
  EXPECT_EQ(run({"backup", "--url", "no url"}), kExitUsage);
  testing::internal::CaptureStderr();
  EXPECT_EQ(run({"backup", "--url", "http://127.0.0.1:1", "--keep", "3"}), kExitUsage);
  const std::string refusal = testing::internal::GetCapturedStderr();
  EXPECT_NE(refusal.find("AIONBD_BACKUP_KEEP"), std::string::npos) << refusal;
  EXPECT_EQ(run({"backup", "--data-dir", path("data"), "--to", path("out"), "--keep", "0"}),
            kExitUsage);
  EXPECT_EQ(run({"backup", "--url", "http://127.0.0.1:1", "--quiet"}), kExitIo);
}

TEST_F(StoreCommandsTest, TextOfFilesCannotReachTheTerminalRaw) {
  EXPECT_EQ(printable("a\x1b[2J\n\xff"), "a?[2J??");
  EXPECT_EQ(printable("naïve"), "naïve");
}

}  // namespace
}  // namespace aionbd
