// A process without a free descriptor (fault F10): writes go on, a checkpoint that cannot open a
// file is refused, counted and tried again, nothing stops for good.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/test_metric.h"
#include "engine/test_store.h"

namespace aionbd {
namespace {

/// Takes every descriptor there is. Thread safety: single owner.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit low{256, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    for (int fd = ::open("/dev/null", O_RDONLY); fd >= 0; fd = ::open("/dev/null", O_RDONLY)) {
      taken_.push_back(fd);
    }
  }
  ~NoDescriptors() {
    for (const int fd : taken_) ::close(fd);
    setrlimit(RLIMIT_NOFILE, &before_);
  }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  rlimit before_{};
  std::vector<int> taken_;
};

using DescriptorsTest = StoreTest;

TEST_F(DescriptorsTest, WritesGoOnAndCheckpointsAreTriedAgain) {
  DatabaseOptions options = options_for(dir_);
  // Nobody beside the test opens files, whose descriptors would be free again in the middle of it.
  options.index_warmup_on_boot = false;
  auto database = Database::open(options).value();
  const auto collection = database->collection("docs").value();
  const uint64_t before = collection->count(nullptr).value();
  {
    const NoDescriptors none;
    EXPECT_TRUE(collection->upsert(docs(100000, 20, 0)).has_value());
    EXPECT_EQ(database->checkpoint().code(), Code::kIoError);
    EXPECT_TRUE(collection->upsert(docs(100020, 20, 0)).has_value());
    EXPECT_EQ(database->checkpoint().code(), Code::kIoError);
    EXPECT_TRUE(database->health().storage_available) << database->health().reason;
    EXPECT_EQ(collection->count(nullptr).value(), before + 40);
  }
  EXPECT_EQ(metric_of(*database, "persistence_checkpoint_error_total"), 2);
  EXPECT_TRUE(database->checkpoint().ok());
  EXPECT_TRUE(collection->upsert(docs(100040, 1, 0)).has_value());
  EXPECT_TRUE(database->health().quarantined.empty());
}

}  // namespace
}  // namespace aionbd
