#include "base/checksum.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace aionbd {
namespace {

// These values are on disk: a library that gives others cannot read our files.
TEST(Checksum, IsXxh3) {
  EXPECT_EQ(checksum({}, 0), 0x2D06800538D394C2U);  // published test vector of XXH3-64
  EXPECT_EQ(checksum(as_bytes_of("aionbd"), 0), 0xF459DB20AADCC40FU);
  EXPECT_EQ(checksum_seed(1, 2, 3), 0x7C68B4906E7EA780U);
}

TEST(Checksum, SeedAndEveryBitMatter) {
  std::string text(300, 'x');  // long enough for the wide path of XXH3
  std::set<uint64_t> seen{checksum(as_bytes_of(text), 0), checksum(as_bytes_of(text), 1)};
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
    seen.insert(checksum(as_bytes_of(text), 0));
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
  }
  EXPECT_EQ(seen.size(), 2 + text.size() * 8);
}

TEST(Checksum, OrderOfIdentityWordsMatters) {
  EXPECT_NE(checksum_seed(1, 2, 3), checksum_seed(2, 1, 3));
  EXPECT_NE(checksum_seed(1, 2, 3), checksum_seed(1, 3, 2));
}

}  // namespace
}  // namespace aionbd
