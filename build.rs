//! Tells the linker where what is built here finds libtorch, so that it runs without LD_LIBRARY_PATH. One script for all packages
//! that may be linked with it.

fn main() {
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
