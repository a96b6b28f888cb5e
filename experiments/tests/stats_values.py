import scipy, scipy.stats as s
print("//! Written by experiments/tests/stats_values.py with scipy", scipy.__version__)
rows=[(p,df) for p in (0.6,0.9,0.975,0.995,0.9995) for df in (1,2,3,4,9,29,200)]+[(0.025,4),(0.3,7)]
print("\npub const SCIPY_T: [(f64, f64, f64); %d] = ["%len(rows))
for p,df in rows: print("    (%r, %r, %r),"%(p,float(df),float(s.t.ppf(p,df))))
print("];")
a=[0.71,0.64,0.69,0.75,0.70,0.66,0.73]; b=[0.68,0.65,0.61,0.70,0.69,0.60,0.71]
print("pub const SCIPY_A: [f64; 7] = %r;\npub const SCIPY_B: [f64; 7] = %r;"%(a,b))
print("pub const SCIPY_PAIRED_P: f64 = %r;"%float(s.ttest_rel(a,b).pvalue))
