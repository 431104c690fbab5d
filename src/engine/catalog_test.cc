#include "engine/catalog.h"

#include <gtest/gtest.h>

#include <functional>

namespace aionbd {
namespace {

Catalog sample() {
  Catalog catalog;
  catalog.next_segment = 20;
  CatalogEntry docs;
  docs.uid = 1;
  docs.name = "docs";
  docs.options.dimension = 4;
  docs.options.metric = Metric::kL2;
  docs.applied = 70;
  docs.segments = {3, 4};
  docs.indexes = {{3, IndexKind::kVector, Metric::kL2, 5},
                  {3, IndexKind::kVector, Metric::kDot, 6},
                  {3, IndexKind::kFields, Metric::kDot, 7},
                  {4, IndexKind::kVector, Metric::kL2, 8}};
  CatalogEntry names;
  names.uid = 9;
  names.name = "names";
  names.options.dimension = 2;
  names.options.id_type = IdType::kString;
  names.segments = {12};
  catalog.collections = {docs, names};
  return catalog;
}

TEST(Catalog, ReadsBackWhatWasWritten) {
  const std::string bytes = encode_catalog(sample());
  const Result<Catalog> read = decode_catalog(bytes);
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(encode_catalog(*read), bytes);
  EXPECT_EQ(read->collections[0].indexes.size(), 4u);
  EXPECT_TRUE(decode_catalog("")->collections.empty());
}

TEST(Catalog, EveryCutIsRefused) {
  const std::string bytes = encode_catalog(sample());
  for (size_t n = 1; n < bytes.size(); ++n) {
    EXPECT_FALSE(decode_catalog(std::string_view(bytes).substr(0, n))) << n;
  }
  EXPECT_FALSE(decode_catalog(bytes + '\0'));
  // More collections than there are bytes for; the count is behind the version.
  std::string many = bytes;
  many[sizeof(uint32_t) + 3] = '\x7f';
  EXPECT_FALSE(decode_catalog(many));
  std::string newer = bytes;
  newer[0] = 9;
  EXPECT_FALSE(decode_catalog(newer));
}

TEST(Catalog, RefusesWhatNamesAThingTwice) {
  struct Case {
    const char* name;
    std::function<void(Catalog&)> spoil;
  };
  const Case cases[] = {
      {"two indexes for one metric",
       [](Catalog& c) {
         c.collections[0].indexes.push_back({3, IndexKind::kVector, Metric::kL2, 9});
       }},
      {"two field indexes of a segment",
       [](Catalog& c) {
         c.collections[0].indexes.push_back({3, IndexKind::kFields, Metric::kDot, 9});
       }},
      {"one index twice",
       [](Catalog& c) { c.collections[0].indexes.push_back(c.collections[0].indexes[0]); }},
      {"one file for two indexes", [](Catalog& c) { c.collections[0].indexes[1].file = 5; }},
      {"an index in the file of a segment",
       [](Catalog& c) { c.collections[0].indexes[0].file = 12; }},
      {"an index of no kind we know",
       [](Catalog& c) { c.collections[0].indexes[0].kind = static_cast<IndexKind>(99); }},
      {"a segment twice", [](Catalog& c) { c.collections[0].segments.push_back(4); }},
      {"a segment of two collections", [](Catalog& c) { c.collections[1].segments[0] = 3; }},
      {"a file whose id will be given again", [](Catalog& c) { c.next_segment = 12; }},
      {"an index of another collection's segment",
       [](Catalog& c) { c.collections[0].indexes[0].segment = 12; }},
      {"a field index with a metric",
       [](Catalog& c) { c.collections[0].indexes[2].metric = Metric::kL2; }},
      {"two collections of one name", [](Catalog& c) { c.collections[1].name = "docs"; }},
      {"two collections of one uid", [](Catalog& c) { c.collections[1].uid = 1; }},
  };
  for (const Case& each : cases) {
    Catalog catalog = sample();
    each.spoil(catalog);
    const Result<Catalog> read = decode_catalog(encode_catalog(catalog));
    ASSERT_FALSE(read) << each.name;
    EXPECT_EQ(read.error().code(), Code::kCorruption) << each.name;
  }
}

}  // namespace
}  // namespace aionbd
