# The link graph is the architecture: fails the build when a file includes what its folder may not.
#   cmake -DROOT=<source dir> -DFOLDER=<folder> -P check_layers.cmake
# Columns: the project folders each folder may include, and the system headers it must not.
set(io_MAY "io")
set(engine_MAY "io/io\\.h|io/types\\.h|io/assert\\.h|engine")
set(sim_MAY "io/io\\.h|io/types\\.h|io/assert\\.h|engine|sim")
set(proptests_MAY "io/io\\.h|io/types\\.h|io/assert\\.h|engine|sim|proptests")
set(fuse_adapter_MAY "io|engine|fuse_adapter")
set(nfs_source_MAY "io/descriptor\\.h|io/nfs_url\\.h|nfs_source")
set(bench_MAY "io|engine|fuse_adapter|sim|bench")
set(tools_MAY
    "io/io\\.h|io/types\\.h|io/assert\\.h|engine|sim|tools|fuse_adapter/control_socket\\.h|fuse_adapter/mount_table\\.h")

# A test may include what its subject's folder may and, to check the laws of io.h, the simulator.
set(io_test_MAY "io|engine|sim")
set(sim_test_MAY "io|engine|sim")
# What the simulated disk says of a power loss is tried on the real driver.
set(fuse_adapter_test_MAY "io|engine|fuse_adapter|sim")

# engine and sim are pure: no system calls, threads, clocks, randomness, Asio or FUSE.
set(pure_MUST_NOT
    "boost/|fuse|thread|mutex|shared_mutex|condition_variable|future|chrono|random|ctime|filesystem|fstream|iostream|unistd|fcntl|pthread|time\\.h|signal|sys/")
set(engine_MUST_NOT "${pure_MUST_NOT}")
set(sim_MUST_NOT "${pure_MUST_NOT}")
set(io_MUST_NOT "fuse")
set(tools_MUST_NOT "fuse\\.h|fuse3/|fuse_lowlevel\\.h")

file(GLOB files "${ROOT}/${FOLDER}/*.h" "${ROOT}/${FOLDER}/*.cc")
foreach(file IN LISTS files)
  set(may "${${FOLDER}_MAY}")
  set(must_not "${${FOLDER}_MUST_NOT}")
  if(file MATCHES "_test\\.cc$")
    set(must_not "")
    if(DEFINED ${FOLDER}_test_MAY)
      set(may "${${FOLDER}_test_MAY}")
    endif()
  endif()
  file(STRINGS "${file}" includes REGEX "^#include [<\"]")
  foreach(include IN LISTS includes)
    string(REGEX REPLACE "^#include [<\"]([^>\"]+)[>\"].*" "\\1" header "${include}")
    if(header MATCHES "^(io|engine|fuse_adapter|nfs_source|sim|proptests|bench|tools)/"
       AND NOT header MATCHES "^(${may})(/|$)")
      message(FATAL_ERROR "${file}: ${FOLDER} may not include \"${header}\"")
    endif()
    if(must_not AND header MATCHES "^(${must_not})")
      message(FATAL_ERROR "${file}: ${FOLDER} may not include <${header}>")
    endif()
  endforeach()
endforeach()
