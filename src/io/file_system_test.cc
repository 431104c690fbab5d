// The contract of FileSystem, run over the machine's and the simulated one.
#include "io/file_system.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "io/sim_file_system.h"

namespace aionbd {
namespace {

struct Kind {
  const char* name;
  bool simulated;
};

class FileSystemContract : public ::testing::TestWithParam<Kind> {
 protected:
  FileSystemContract() {
    if (GetParam().simulated) {
      files_ = &sim_;
      dir_ = "store";
    } else {
      std::string pattern = (std::filesystem::temp_directory_path() / "aionbd-XXXXXX").string();
      temp_ = mkdtemp(pattern.data());
      files_ = &posix_file_system();
      dir_ = temp_ + "/a/b";
    }
    EXPECT_TRUE(files_->make_dirs(dir_).ok());
  }
  ~FileSystemContract() override {
    if (!temp_.empty()) std::filesystem::remove_all(temp_);
  }
  std::string path(const std::string& name) const { return dir_ + "/" + name; }
  void put(const std::string& name, std::string_view text) {
    auto file = files_->create(path(name)).value();
    ASSERT_TRUE(file->append(as_bytes_of(text)).ok());
    ASSERT_TRUE(file->sync().ok());
  }
  std::string get(const std::string& name) { return files_->read(path(name), 1 << 20).value(); }

  SimFileSystem sim_;
  FileSystem* files_ = nullptr;
  std::string temp_;
  std::string dir_;
};

TEST_P(FileSystemContract, AppendsAndReadsBack) {
  auto file = files_->create(path("f")).value();
  EXPECT_EQ(file->size(), 0u);
  const std::array<Bytes, 4> parts = {as_bytes_of("one"), Bytes(), as_bytes_of("two"),
                                      as_bytes_of("three")};
  ASSERT_TRUE(file->append(parts).ok());
  ASSERT_TRUE(file->append(std::span<const Bytes>()).ok());
  EXPECT_EQ(file->size(), 11u);
  EXPECT_TRUE(file->sync().ok());
  EXPECT_TRUE(files_->sync_dir(dir_).ok());
  EXPECT_EQ(get("f"), "onetwothree");
  EXPECT_EQ(files_->file_size(path("f")).value(), 11u);
  EXPECT_EQ(files_->read_at(path("f"), 3, 3).value(), "two");
  EXPECT_EQ(files_->read_at(path("f"), 9, 100).value(), "ee");
  EXPECT_EQ(files_->read_at(path("f"), 11, 1).value(), "");
  EXPECT_EQ(files_->read_at(path("f"), 1 << 30, 1).value(), "");
  EXPECT_EQ(files_->read(path("f"), 11).value().size(), 11u);
  EXPECT_EQ(files_->read(path("f"), 10).status().code(), Code::kResourceExhausted);
}

TEST_P(FileSystemContract, ManyPartsGoInOneCall) {
  std::vector<Bytes> parts(5000, as_bytes_of("ab"));  // above IOV_MAX
  auto file = files_->create(path("f")).value();
  ASSERT_TRUE(file->append(parts).ok());
  EXPECT_EQ(file->size(), 10000u);
  const std::string all = get("f");
  ASSERT_EQ(all.size(), 10000u);
  for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], i % 2 == 0 ? 'a' : 'b') << i;
}

TEST_P(FileSystemContract, TruncatesAndGoesOnThere) {
  put("f", "0123456789");
  auto file = files_->open_for_append(path("f")).value();
  EXPECT_EQ(file->size(), 10u);
  ASSERT_TRUE(file->truncate(4).ok());
  EXPECT_EQ(file->size(), 4u);
  EXPECT_EQ(files_->file_size(path("f")).value(), 4u);
  ASSERT_TRUE(file->append(as_bytes_of("xy")).ok());
  EXPECT_EQ(get("f"), "0123xy");
}

TEST_P(FileSystemContract, CreateEmptiesAnExistingFile) {
  put("f", "content");
  auto file = files_->create(path("f")).value();
  EXPECT_EQ(file->size(), 0u);
  EXPECT_EQ(get("f"), "");
}

TEST_P(FileSystemContract, ListsSortedNames) {
  for (const char* name : {"b", "a", "c"}) put(name, "");
  EXPECT_EQ(files_->list(dir_).value(), (std::vector<std::string>{"a", "b", "c"}));
  ASSERT_TRUE(files_->remove(path("b")).ok());
  ASSERT_TRUE(files_->rename(path("c"), path("a")).ok());
  EXPECT_EQ(files_->list(dir_).value(), std::vector<std::string>{"a"});
}

TEST_P(FileSystemContract, FreeBytesAreOfADirectoryThatIsThere) {
  EXPECT_GT(files_->free_bytes(dir_).value(), 0U);
  EXPECT_EQ(files_->free_bytes(path("no")).status().code(), Code::kNotFound);
}

TEST_P(FileSystemContract, RenameReplaces) {
  put("old", "old");
  put("new", "new");
  ASSERT_TRUE(files_->rename(path("new"), path("old")).ok());
  EXPECT_EQ(get("old"), "new");
  EXPECT_EQ(files_->file_size(path("new")).status().code(), Code::kNotFound);
}

TEST_P(FileSystemContract, MissingFilesAreNotFound) {
  const std::string no = path("no");
  EXPECT_EQ(files_->open_for_append(no).status().code(), Code::kNotFound);
  EXPECT_EQ(files_->read(no, 1).status().code(), Code::kNotFound);
  EXPECT_EQ(files_->read_at(no, 0, 1).status().code(), Code::kNotFound);
  EXPECT_EQ(files_->map(no).status().code(), Code::kNotFound);
  EXPECT_EQ(files_->file_size(no).status().code(), Code::kNotFound);
  EXPECT_EQ(files_->remove(no).code(), Code::kNotFound);
  EXPECT_EQ(files_->rename(no, path("x")).code(), Code::kNotFound);
  EXPECT_EQ(files_->create(dir_ + "/no/f").status().code(), Code::kNotFound);
  EXPECT_EQ(files_->list(dir_ + "/no").status().code(), Code::kNotFound);
  EXPECT_EQ(files_->sync_dir(dir_ + "/no").code(), Code::kNotFound);
}

TEST_P(FileSystemContract, ForgottenPagesComeBack) {
  const std::string text(100000, 'x');
  put("f", text);
  const std::unique_ptr<MappedFile> map = files_->map(path("f")).value();
  EXPECT_EQ(as_text(map->bytes()), text);
  map->forget_pages();
  EXPECT_EQ(as_text(map->bytes()), text);
}

TEST_P(FileSystemContract, CopiesOfAMapAreItsBytesWhateverBecameOfTheName) {
  put("f", "0123456789");
  put("g", "0123456789");
  const auto read = [](const MappedFile& map) {
    std::string out(4, '-');
    EXPECT_TRUE(map.read_at(3, std::as_writable_bytes(std::span(out))).ok());
    return out;
  };
  const auto early = files_->map(path("f")).value();
  EXPECT_EQ(read(*early), "3456");
  EXPECT_TRUE(early->read_at(10, {}).ok());
  const auto late = files_->map(path("g")).value();
  for (const char* name : {"f", "g"}) ASSERT_TRUE(files_->remove(path(name)).ok());
  EXPECT_EQ(read(*early), "3456");
  EXPECT_EQ(read(*late), "3456");
  put("h", "0123456789");
  const auto other = files_->map(path("h")).value();
  put("new", "abcdefghij");
  ASSERT_TRUE(files_->rename(path("new"), path("h")).ok());
  EXPECT_EQ(read(*other), "3456") << "another file has the name now";
}

TEST_P(FileSystemContract, MapsWholeFilesAndEmptyOnes) {
  put("f", "mapped");
  put("empty", "");
  auto image = files_->map(path("f")).value();
  EXPECT_EQ(as_text(image->bytes()), "mapped");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(image->bytes().data()) % 64, 0u);
  ASSERT_TRUE(files_->remove(path("f")).ok());
  EXPECT_EQ(as_text(image->bytes()), "mapped") << "outlives the name";
  EXPECT_TRUE(files_->map(path("empty")).value()->bytes().empty());
}

TEST_P(FileSystemContract, LockIsExclusiveUntilDropped) {
  auto lock = files_->lock(path("LOCK")).value();
  EXPECT_EQ(files_->lock(path("LOCK")).status().code(), Code::kInUse);
  lock.reset();
  EXPECT_TRUE(files_->lock(path("LOCK")).has_value());
}

TEST_P(FileSystemContract, MakeDirsIsRepeatable) {
  EXPECT_TRUE(files_->make_dirs(dir_).ok());
  EXPECT_TRUE(files_->make_dirs(dir_ + "/x/y").ok());
  EXPECT_TRUE(files_->list(dir_ + "/x/y").value().empty());
}

INSTANTIATE_TEST_SUITE_P(Both, FileSystemContract,
                         ::testing::Values(Kind{"posix", false}, Kind{"sim", true}),
                         [](const auto& param) { return param.param.name; });

// ---- What only the machine has -----------------------------------------------------------------

class PosixTest : public ::testing::Test {
 protected:
  PosixTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "aionbd-XXXXXX").string();
    dir_ = mkdtemp(pattern.data());
  }
  ~PosixTest() override { std::filesystem::remove_all(dir_); }

  FileSystem& files_ = posix_file_system();
  std::string dir_;
};

TEST_F(PosixTest, FilesAndDirectoriesArePrivate) {
  const mode_t mask = ::umask(0);
  ASSERT_TRUE(files_.make_dirs(dir_ + "/d").ok());
  ASSERT_TRUE(files_.create(dir_ + "/d/f").has_value());
  ::umask(mask);
  struct stat info {};
  ASSERT_EQ(::stat((dir_ + "/d").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  ASSERT_EQ(::stat((dir_ + "/d/f").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(PosixTest, SymbolicLinksAreNotFollowed) {
  ASSERT_TRUE(files_.create(dir_ + "/target").has_value());
  std::filesystem::create_symlink(dir_ + "/target", dir_ + "/link");
  EXPECT_EQ(files_.create(dir_ + "/link").status().code(), Code::kIoError);
  EXPECT_EQ(files_.open_for_append(dir_ + "/link").status().code(), Code::kIoError);
  EXPECT_EQ(files_.read(dir_ + "/link", 1).status().code(), Code::kIoError);
  EXPECT_EQ(files_.map(dir_ + "/link").status().code(), Code::kIoError);
  EXPECT_EQ(files_.lock(dir_ + "/link").status().code(), Code::kIoError);
}

TEST_F(PosixTest, OnlyRegularFilesAreRead) {
  ASSERT_EQ(::mkfifo((dir_ + "/pipe").c_str(), 0600), 0);
  EXPECT_FALSE(files_.read(dir_ + "/pipe", 10).has_value());
  EXPECT_FALSE(files_.map(dir_ + "/pipe").has_value());
  EXPECT_FALSE(files_.file_size(dir_ + "/pipe").has_value());
  EXPECT_FALSE(files_.read(dir_, 10).has_value());
  EXPECT_FALSE(files_.make_dirs(dir_ + "/pipe/x").ok());
}

TEST_F(PosixTest, ReadsFilesOfTheKernelThatStateNoSize) {
  const auto text = files_.read("/proc/self/statm", 1000);
  ASSERT_TRUE(text.has_value()) << text.error().to_string();
  EXPECT_FALSE(text->empty());
  EXPECT_EQ(files_.read("/proc/self/statm", 3)->size(), 3u);
}

TEST_F(PosixTest, FileSizeLimitIsStorageFull) {
  auto file = files_.create(dir_ + "/f").value();
  struct rlimit old {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  struct rlimit low = old;
  low.rlim_cur = 4096;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // as the program does
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  const Status status = file->append(as_bytes_of(std::string(8192, 'x')));
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(status.code(), Code::kStorageFull);
  EXPECT_NE(status.message().find(dir_ + "/f"), std::string::npos) << status.message();
  EXPECT_EQ(file->size(), 4096u) << "what the system call returned";
  EXPECT_TRUE(file->truncate(0).ok());
  EXPECT_EQ(files_.file_size(dir_ + "/f").value(), 0u);
}

}  // namespace
}  // namespace aionbd
