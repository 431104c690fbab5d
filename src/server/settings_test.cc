#include "server/settings.h"

#include <gtest/gtest.h>

#include <set>

#include "aionbd/database.h"

namespace aionbd {
namespace {

SettingSources from(std::map<std::string, std::string> flags,
                    std::map<std::string, std::string> environment = {},
                    std::optional<std::string> file = std::nullopt) {
  SettingSources out;
  out.flags = std::move(flags);
  out.environment = std::move(environment);
  out.config_text = std::move(file);
  out.config_name = "a.conf";
  return out;
}

std::string refusal(const SettingSources& sources) {
  const auto loaded = load_settings(sources);
  return loaded.has_value() ? "" : loaded.error().message();
}

TEST(Settings, DefaultsAreTheContracts) {
  const auto loaded = load_settings({});
  ASSERT_TRUE(loaded.has_value()) << loaded.status().to_string();
  const Settings& s = (*loaded).settings;
  EXPECT_TRUE((*loaded).warnings.empty());
  EXPECT_EQ(s.bind, "127.0.0.1:8080");
  EXPECT_EQ(s.bind_address(), "127.0.0.1");
  EXPECT_EQ(s.bind_port(), 8080);
  EXPECT_EQ(s.max_dimension, 4096U);
  EXPECT_EQ(s.max_points_per_collection, 1000000U);
  EXPECT_EQ(s.max_body_bytes, 16777216U);
  EXPECT_EQ(s.request_timeout_ms, 2000U);
  EXPECT_EQ(s.checkpoint_interval, 32U);
  EXPECT_TRUE(s.wal_sync_on_write);
  const DatabaseOptions options = database_options(s);
  EXPECT_EQ(options.group_commit_batch_max, 16U);
  EXPECT_EQ(options.compact_after, 64U);
}

TEST(Settings, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::map<std::string, std::string> flag = {{"max_topk_limit", "1"}};
  const std::map<std::string, std::string> variable = {{"AIONBD_MAX_TOPK_LIMIT", "2"}};
  const std::string file = "max_topk_limit = 3\n";
  EXPECT_EQ((*load_settings(from(flag, variable, file))).settings.max_topk_limit, 1U);
  EXPECT_EQ((*load_settings(from({}, variable, file))).settings.max_topk_limit, 2U);
  EXPECT_EQ((*load_settings(from({}, {}, file))).settings.max_topk_limit, 3U);
  EXPECT_EQ((*load_settings(from({}))).settings.max_topk_limit, 1000U);
}

TEST(Settings, EveryRowRefusesWhatIsOutsideItsRange) {
  std::set<std::string_view> names;
  for (const SettingRow& row : setting_rows()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_FALSE(row.help.empty()) << row.name;
    const std::string name(row.name);
    if (row.field.index() == 2) {
      for (const std::string& bad :
           {std::string("x"), std::string(""), std::string("-1"), std::string("1.5"),
            std::string("18446744073709551616"), std::to_string(row.max + 1)}) {
        EXPECT_NE(refusal(from({{name, bad}})), "") << name << "=" << bad;
      }
      if (row.min > 0) {
        EXPECT_NE(refusal(from({{name, std::to_string(row.min - 1)}})), "") << name;
      }
    } else if (row.field.index() == 1) {
      EXPECT_NE(refusal(from({{name, "maybe"}})), "") << name;
    }
    EXPECT_EQ(refusal(from({{name, std::string(row.default_text)}})), "") << name;
  }
}

TEST(Settings, ARefusalNamesTheSettingAsItWasSpelled) {
  EXPECT_EQ(refusal(from({{"max_dimension", "0"}})),
            "--max-dimension must be a whole number from 1 to 65536 (values): got \"0\"");
  EXPECT_EQ(refusal(from({}, {{"AIONBD_MAX_DIMENSION", "x"}})),
            "AIONBD_MAX_DIMENSION must be a whole number from 1 to 65536 (values): got \"x\"");
  EXPECT_EQ(refusal(from({}, {}, "max_dimension = x")),
            "a.conf: max_dimension must be a whole number from 1 to 65536 (values): got \"x\"");
}

TEST(Settings, ReadsAFileStrictly) {
  const auto loaded = load_settings(
      from({}, {}, "# c\n\n data_dir = \"/a b\" # c\nbind='[::1]:0'\r\nmax_dimension=7#c\n"));
  ASSERT_TRUE(loaded.has_value()) << loaded.status().to_string();
  EXPECT_EQ((*loaded).settings.data_dir, "/a b");
  EXPECT_EQ((*loaded).settings.bind_address(), "::1");
  EXPECT_EQ((*loaded).settings.max_dimension, 7U);
  for (const char* bad : {"nonsense", "unknown_key = 1", "data_dir = \"a", "data_dir = \"a\" b",
                          "max_dimension = 1\nmax_dimension = 2", "= 1"}) {
    EXPECT_NE(refusal(from({}, {}, bad)), "") << bad;
  }
}

TEST(Settings, RefusesWhatContradictsItself) {
  EXPECT_NE(refusal(from({{"memory_budget_mb", "1"}, {"memory_budget_bytes", "2"}})), "");
  EXPECT_EQ(refusal(from({{"memory_budget_mb", "1"}, {"memory_budget_bytes", "1048576"}})), "");
  EXPECT_EQ((*load_settings(from({{"memory_budget_mb", "2"}}))).settings.memory_budget(), 2097152U);
  for (const char* bad : {"", "8080", "a:", ":80", "::1:80", "a:65536", "a:-1"}) {
    EXPECT_NE(refusal(from({{"bind", bad}})), "") << bad;
  }
}

TEST(Settings, WhatThisBuildCannotDoIsRefused) {
  EXPECT_NE(refusal(from({{"tls_enabled", "true"}})).find("not supported"), std::string::npos);
  EXPECT_NE(refusal(from({}, {{"AIONBD_AUTH_MODE", "jwt"}})).find("not supported"),
            std::string::npos);
  const std::string secret = refusal(from({}, {{"AIONBD_AUTH_API_KEYS", "t:hunter2"}}));
  EXPECT_NE(secret, "");
  EXPECT_EQ(secret.find("hunter2"), std::string::npos) << secret;
}

TEST(Settings, RefusesKernelsThatAreNotThere) {
  const auto with = [](std::string_view simd) {
    return refusal(from({}, {{"AIONBD_SIMD", std::string(simd)}}));
  };
  for (const char* unknown : {"bogus", "AVX2", "scalar ", "avx2,scalar", "mmx"}) {
    const std::string refused = with(unknown);
    EXPECT_NE(refused.find("AIONBD_SIMD must be one of "), std::string::npos) << unknown;
    for (const std::string_view name : Database::simd_targets()) {
      EXPECT_NE(refused.find(name), std::string::npos) << name;
    }
  }
  for (const std::string_view name : Database::simd_targets()) EXPECT_EQ(with(name), "") << name;
  EXPECT_EQ(with(""), "");
}

TEST(Settings, WarnsOfWhatHasNoEffect) {
  const auto warnings = [](const SettingSources& sources) {
    return (*load_settings(sources)).warnings.size();
  };
  EXPECT_EQ(warnings(from({}, {{"AIONBD_TYPO", "1"}, {"OTHER", "1"}, {"AIONBD_SIMD", "scalar"}})),
            1U);
  EXPECT_EQ(warnings(from({{"wal_sync_every_n_writes", "5"}})), 1U);
  EXPECT_EQ(warnings(from({{"wal_sync_every_n_writes", "5"}, {"wal_sync_on_write", "false"}})), 0U);
  EXPECT_EQ(warnings(from({{"persistence_enabled", "false"}})), 1U);
}

TEST(Settings, PrintsEveryRow) {
  for (const TableFormat format : {TableFormat::kText, TableFormat::kMarkdown}) {
    const std::string page = print_settings(format);
    for (const SettingRow& row : setting_rows()) {
      EXPECT_NE(page.find(setting_variable(row)), std::string::npos) << row.name;
    }
  }
}

}  // namespace
}  // namespace aionbd
