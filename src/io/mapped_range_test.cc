// A fault in a mapped file is a mark and zeros; any other SIGBUS is as it was before.
#include "io/mapped_range.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "io/file_system.h"

namespace aionbd {
namespace {

class MappedRangeTest : public testing::Test {
 protected:
  MappedRangeTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "aionbd-XXXXXX").string();
    dir_ = mkdtemp(pattern.data());
  }
  ~MappedRangeTest() override { std::filesystem::remove_all(dir_); }

  std::string put(const std::string& name, size_t bytes) const {
    const std::string path = dir_ + "/" + name;
    auto file = posix_file_system().create(path).value();
    EXPECT_TRUE(file->append(as_bytes_of(std::string(bytes, 'x'))).ok());
    return path;
  }
  static uint64_t sum(Bytes bytes) {
    uint64_t out = 0;
    for (const std::byte b : bytes) out += static_cast<uint64_t>(b);
    return out;
  }

  std::string dir_;
};

TEST_F(MappedRangeTest, ACutFileReadsAsZerosAndIsMarked) {
  FileSystem& files = posix_file_system();
  const std::string path = put("cut", 50000);
  const auto map = files.map(path).value();
  const auto other = files.map(put("other", 50000)).value();
  const uint64_t before = files.map_failures();
  ASSERT_EQ(sum(map->bytes()), 50000u * 'x');
  ASSERT_EQ(::truncate(path.c_str(), 5000), 0);
  EXPECT_FALSE(map->failed()) << "nobody has met it";
  // The kernel fills the rest of the last page with zeros.
  EXPECT_EQ(sum(map->bytes()), 5000u * 'x');
  EXPECT_TRUE(map->failed());
  EXPECT_EQ(files.map_failures(), before + 1);
  EXPECT_EQ(sum(map->bytes()), 5000u * 'x');
  EXPECT_EQ(files.map_failures(), before + 1) << "one file, counted once";
  EXPECT_FALSE(other->failed());
  EXPECT_EQ(sum(other->bytes()), 50000u * 'x');
}

TEST_F(MappedRangeTest, AReadThatFailsMarksToo) {
  const std::string path = put("cut", 50000);
  const auto map = posix_file_system().map(path).value();
  std::vector<std::byte> out(100);
  ASSERT_TRUE(map->read_at(40000, out).ok());
  ASSERT_EQ(::truncate(path.c_str(), 5000), 0);
  EXPECT_EQ(map->read_at(40000, out).code(), Code::kIoError);
  EXPECT_TRUE(map->failed());
}

TEST_F(MappedRangeTest, ManyMapsComeAndGo) {
  const std::string path = put("f", 5000);
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<MappedFile>> maps;
    for (int i = 0; i < 1000; ++i) maps.push_back(posix_file_system().map(path).value());
    for (const auto& map : maps) EXPECT_FALSE(map->failed());
  }
  const std::string cut = put("cut", 50000);
  std::vector<std::unique_ptr<MappedFile>> maps;
  for (int i = 0; i < 600; ++i) maps.push_back(posix_file_system().map(cut).value());
  ASSERT_EQ(::truncate(cut.c_str(), 0), 0);
  EXPECT_EQ(sum(maps.back()->bytes()), 0u);
  EXPECT_TRUE(maps.back()->failed());
  EXPECT_FALSE(maps.front()->failed());
}

TEST_F(MappedRangeTest, ThreadsMeetItTogether) {
  const std::string path = put("cut", 400000);
  const auto map = posix_file_system().map(path).value();
  ASSERT_EQ(::truncate(path.c_str(), 100000), 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      EXPECT_EQ(sum(map->bytes()), 100000u * 'x');
      EXPECT_TRUE(map->failed()) << "whoever has read a zero finds the mark";
    });
  }
  for (auto& thread : threads) thread.join();
}

/// Touches a page of a map that is not ours and has no file behind it any more.
void fault_elsewhere(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR);
  auto* const at = static_cast<volatile char*>(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0));
  if (::ftruncate(fd, 0) != 0) _exit(1);
  static_cast<void>(at[0]);
}

using MappedRangeDeathTest = MappedRangeTest;

TEST_F(MappedRangeDeathTest, FaultsElsewhereGoToTheHostsHandler) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const std::string path = put("f", 5000);
  EXPECT_EXIT(
      {
        struct sigaction hosts {};
        hosts.sa_handler = [](int) { _exit(42); };
        ::sigaction(SIGBUS, &hosts, nullptr);
        const auto map = posix_file_system().map(path).value();
        fault_elsewhere(path);
      },
      testing::ExitedWithCode(42), "");
}

TEST_F(MappedRangeDeathTest, WithoutAHandlerTheyEndTheProcess) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const std::string path = put("f", 5000);
  EXPECT_DEATH(
      {
        const auto map = posix_file_system().map(put("g", 5000)).value();
        fault_elsewhere(path);
      },
      "");
}

}  // namespace
}  // namespace aionbd
